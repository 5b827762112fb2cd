"""MinHash deduplication by datatrove, as near_duplicates of andiron-corpus does it: `dedup.py OUT FILE…` on two processes.

`dedup.py --make DIR SOURCE.jsonl TIMES N` writes TIMES changed copies of the documents of SOURCE, divided into N files: of a copy every tenth
document is almost as it was (about one word of a hundred is replaced), the others have shuffled sentences and every fifth word replaced.
"""

import json
import os
import random
import sys
import time


def make(directory, source, times, n):
    rng = random.Random(7)
    os.makedirs(directory, exist_ok=True)
    documents = [json.loads(line) for line in open(source, encoding="utf-8")]
    vocabulary = sorted({word for document in documents for word in document["text"].split()})
    files = [open(f"{directory}/{index:05}.jsonl", "w", encoding="utf-8") for index in range(n)]
    near = 0
    for copy in range(times):
        for index, document in enumerate(documents):
            words = document["text"].split(" ")
            is_near = copy > 0 and (index + copy) % 10 == 0
            near += is_near
            if copy > 0 and not is_near:
                sentences = " ".join(words).split(". ")
                rng.shuffle(sentences)
                words = ". ".join(sentences).split(" ")
            rate = 0.01 if is_near else 0.2 if copy > 0 else 0
            words = [rng.choice(vocabulary) if rng.random() < rate else word for word in words]
            text = " ".join(words)
            files[(copy * len(documents) + index) * n // (times * len(documents))].write(
                json.dumps({"id": f"{copy}/{index}{'~' if is_near else ''}", "text": text}, ensure_ascii=False) + "\n"
            )
    print(json.dumps({"documents": times * len(documents), "near": near}))


def dedup(out, files):
    from loguru import logger

    logger.remove()
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader

    directory = os.path.dirname(files[0])
    config = MinhashConfig()
    begin = time.time()

    def run(step, tasks, workers):
        LocalPipelineExecutor(pipeline=step, tasks=tasks, workers=workers, skip_completed=False, logging_dir=f"{out}/log-{time.time()}").run()

    run([JsonlReader(directory), MinhashDedupSignature(f"{out}/signatures", config)], len(files), 2)
    signed = time.time()
    run([MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config)], config.num_buckets, 2)
    run([MinhashDedupCluster(f"{out}/buckets", f"{out}/removed", config=config, save_cluster_id=True)], 1, 1)
    removed = {}
    import struct

    for index, file in enumerate(sorted(files)):
        path = f"{out}/removed/{index:06}.remove"
        if os.path.exists(path):
            data = open(path, "rb").read()
            removed[index] = list(struct.unpack(f"<{len(data) // 4}I", data))
    json.dump(removed, open(f"{out}/removed.json", "w"))
    n = sum(map(len, removed.values()))
    print(json.dumps({"sign_s": signed - begin, "decide_s": time.time() - signed, "removed": n}))


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        dedup(sys.argv[1], sys.argv[2:])
