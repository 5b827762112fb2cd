"""Small files as `torch.save` writes them, some of which are refused: the folder `torch`. Made with torch 2.15.0.

Run as `python torch_files.py`; values that a test expects stand in the test.
"""
import collections
import pathlib
import zipfile

import torch

out = pathlib.Path(__file__).parent / "torch"
out.mkdir(exist_ok=True)
torch.manual_seed(0)
base = torch.arange(24, dtype=torch.float32).reshape(4, 6)/8
tied = torch.tensor([[0.5, -1.0], [2.0, 3.25]])
d = collections.OrderedDict()
d["plain"] = torch.tensor([1.5, -2.0, 3.0])
d["matrix"] = base.clone()
d["transposed"] = base.clone().t()
d["slice"] = base.clone()[1:3, 2:5]
d["every_other"] = torch.arange(10, dtype=torch.float32)[1::3]
d["half"] = torch.tensor([0.5, -0.25]).half()
d["bfloat"] = torch.tensor([[1.0], [-3.0]]).bfloat16()
d["tied"] = tied
d["tied_again"] = tied
d["tied_row"] = tied[1]
d["scalar"] = torch.tensor(7.0)
d["empty"] = torch.zeros(0, 3)
d["positions"] = torch.arange(3)
d["mask"] = torch.tensor([True, False])
d["bytes"] = torch.tensor([1, 2], dtype=torch.uint8)
d["parameter"] = torch.nn.Parameter(torch.tensor([4.0, 5.0]))
torch.save(d, out/"tensors.bin")
lin = torch.nn.Linear(2, 3)
lin.weight.data = torch.arange(6, dtype=torch.float32).reshape(3, 2)
lin.bias.data = torch.tensor([0.5, 1.5, 2.5])
torch.save(lin.state_dict(), out/"module.bin")
torch.save(d, out/"protocol4.bin", pickle_protocol=4)
torch.save(collections.OrderedDict(plain=d["plain"]), out/"legacy.bin", _use_new_zipfile_serialization=False)
torch.save({"state":{"plain":d["plain"]}}, out/"nested.bin")
torch.save({"wide": torch.ones(1).expand(5)}, out/"expanded.bin")
torch.save(lin, out/"whole_module.bin")
# the same as tensors.bin, compressed
src = zipfile.ZipFile(out/"tensors.bin")
with zipfile.ZipFile(out/"compressed.bin", "w", zipfile.ZIP_DEFLATED) as z:
    for i in src.infolist(): z.writestr(i.filename, src.read(i))
