//! A reader of pickled state dicts that executes nothing: it supports the opcodes and names that `torch.save` writes,
//! and refuses all others.
//!
//! A pickle is a program for a stack machine. Python's machine can call anything; this one only builds plain values.
//! Source: <https://docs.python.org/3/library/pickletools.html> for the opcodes.

use std::collections::BTreeMap;

use safetensors::Dtype;

/// Maximum number of values: 100 000 tensors push about 3 million.
const MAX_VALUES: usize = 1 << 23;
/// Maximum length of a name, in bytes. A string may be used many times, and each use of a name is a copy.
const MAX_TEXT: usize = 1 << 10;
/// Maximum number of axes, as in PyTorch.
const MAX_AXES: usize = 64;

/// A tensor as the pickle describes it: a view of a storage. Sizes are unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorView {
    /// Name of the storage's entry in the archive.
    pub(super) storage: String,
    pub(super) dtype: Dtype,
    /// Number of elements of the storage, unchecked.
    pub(super) storage_len: u64,
    /// Index of the first element.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// Strides, in elements.
    pub(super) strides: Vec<u64>,
}

/// The tensors of a pickled state dict, by name.
pub(super) fn read_state_dict(bytes: &[u8]) -> Result<BTreeMap<String, TensorView>, PickleError> {
    Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        objects: Vec::new(),
        pushed: 0,
    }
    .run()
}

/// Errors of a pickle.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PickleError {
    /// It ends too early.
    #[error("it ends at byte {at}, in the middle of an instruction")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// An unsupported opcode.
    #[error("opcode {opcode:#04x} at byte {at} is not one that weights need")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Its byte offset.
        at: usize,
    },
    /// An unsupported global name, which Python would import and perhaps call.
    #[error("it asks for {name}, which weights do not need; nothing is executed here")]
    Global {
        /// Module and name.
        name: String,
    },
    /// Inconsistent opcodes.
    #[error("at byte {at} {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
        /// Where.
        at: usize,
    },
    /// An entry of the state dict that is not a tensor.
    #[error("{entry} is not a tensor: a dict of tensors by name is read, as model.state_dict() gives it")]
    NoTensor {
        /// Its key.
        entry: String,
    },
    /// Too many values.
    #[error("it makes more than {MAX_VALUES} values")]
    TooMany,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    /// An index into the machine's objects.
    Object(usize),
}

#[derive(Debug)]
enum Object {
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage { dtype: Dtype, key: String, len: u64 },
    Tensor(TensorView),
}

/// Supported global names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Dtype),
}

impl Global {
    fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("torch", "DoubleStorage") => Self::Storage(Dtype::F64),
            ("torch", "FloatStorage") => Self::Storage(Dtype::F32),
            ("torch", "HalfStorage") => Self::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Dtype::BF16),
            ("torch", "LongStorage") => Self::Storage(Dtype::I64),
            ("torch", "IntStorage") => Self::Storage(Dtype::I32),
            ("torch", "ShortStorage") => Self::Storage(Dtype::I16),
            ("torch", "CharStorage") => Self::Storage(Dtype::I8),
            ("torch", "ByteStorage") => Self::Storage(Dtype::U8),
            ("torch", "BoolStorage") => Self::Storage(Dtype::BOOL),
            _ => return None,
        })
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value>,
    objects: Vec<Object>,
    /// Number of values pushed or memoized: bounds all memory.
    pushed: usize,
}

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<BTreeMap<String, TensorView>, PickleError> {
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            match opcode {
                b'.' => {
                    let value = self.pop()?;
                    return self.state_dict(value);
                }
                0x80 => drop(self.byte()?),
                0x95 => drop(self.take(8)?),
                b'(' => {
                    self.count()?;
                    self.marks.push(self.stack.len());
                }
                b'N' => self.push(Value::None)?,
                0x88 | 0x89 => self.push(Value::Bool)?,
                b'K' => {
                    let n = self.byte()?;
                    self.push(Value::Int(n.into()))?;
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                0x8a => {
                    let n = self.byte()?;
                    let long = self.take(n.into())?;
                    let long =
                        integer(long).ok_or_else(|| self.malformed("a number has more than 64 bits"))?;
                    self.push(Value::Int(long))?;
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Float)?;
                }
                b'X' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.push_text(n as usize)?;
                }
                0x8c => {
                    let n = self.byte()?;
                    self.push_text(n.into())?;
                }
                b')' => self.push_object(Object::Tuple(Vec::new()))?,
                0x85..=0x87 => {
                    let items = self.pop_many(usize::from(opcode - 0x84))?;
                    self.push_object(Object::Tuple(items))?;
                }
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push_object(Object::Tuple(items))?;
                }
                b']' => self.push_object(Object::List(Vec::new()))?,
                b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push_object(Object::List(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.append(items)?;
                }
                b'}' => self.push_object(Object::Dict(Vec::new()))?,
                b'd' => {
                    let items = self.pop_to_mark()?;
                    let pairs = self.pairs(&items)?;
                    self.push_object(Object::Dict(pairs))?;
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.set_items(&items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }
                b'q' => {
                    let slot = self.byte()?;
                    self.remember(slot.into())?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.remember(slot)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let slot = self.byte()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.recall(slot)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push_global(module, name)?;
                }
                0x93 => {
                    let items = self.pop_many(2)?;
                    let text = |value| self.text(value).map(str::to_owned);
                    let (module, name) = (text(items[0])?, text(items[1])?);
                    self.push_global(&module, &name)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push_object(storage)?;
                }
                b'R' => {
                    let args = self.pop()?;
                    let function = self.pop()?;
                    self.reduce(function, args)?;
                }
                // The dict's state holds the module versions of `state_dict`.
                b'b' => {
                    self.pop()?;
                    let object = self.top()?;
                    if !matches!(self.object(object), Some(Object::Dict(_))) {
                        return Err(self.malformed("something other than a dict is given a state"));
                    }
                }
                b'0' => drop(self.pop()?),
                opcode => return Err(PickleError::Opcode { opcode, at }),
            }
        }
    }

    fn malformed(&self, reason: &'static str) -> PickleError {
        PickleError::Malformed { reason, at: self.at }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.array::<1>()?[0])
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.malformed("a name is not UTF-8"))
    }

    fn count(&mut self) -> Result<(), PickleError> {
        self.pushed += 1;
        if self.pushed > MAX_VALUES { Err(PickleError::TooMany) } else { Ok(()) }
    }

    fn push(&mut self, value: Value) -> Result<(), PickleError> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object) -> Result<(), PickleError> {
        self.push(Value::Object(self.objects.len()))?;
        self.objects.push(object);
        Ok(())
    }

    fn push_text(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?;
        if len > MAX_TEXT {
            return Err(self.malformed("a text is longer than any name"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("a text is not UTF-8"))?;
        self.push_object(Object::Text(text.to_owned()))
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let global = Global::named(module, name);
        let global =
            global.ok_or_else(|| PickleError::Global { name: shown(&format!("{module}.{name}")) })?;
        self.push_object(Object::Global(global))
    }

    fn top(&self) -> Result<Value, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&value) if self.stack.len() > floor => Ok(value),
            _ => Err(self.malformed("the stack is empty")),
        }
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Value>, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(n) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err(self.malformed("the stack is empty")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("there is no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.objects.get(index),
            _ => None,
        }
    }

    fn text(&self, value: Value) -> Result<&str, PickleError> {
        match self.object(value) {
            Some(Object::Text(text)) => Ok(text),
            _ => Err(self.malformed("there is no text where one belongs")),
        }
    }

    fn tuple(&self, value: Value) -> Result<&[Value], PickleError> {
        match self.object(value) {
            Some(Object::Tuple(items)) => Ok(items),
            _ => Err(self.malformed("there is no tuple where one belongs")),
        }
    }

    fn length(&self, value: Value) -> Result<u64, PickleError> {
        match value {
            Value::Int(n) => u64::try_from(n).map_err(|_| self.malformed("a length is negative")),
            _ => Err(self.malformed("there is no number where one belongs")),
        }
    }

    fn lengths(&self, value: Value) -> Result<Vec<u64>, PickleError> {
        let sizes = self.tuple(value)?;
        if sizes.len() > MAX_AXES {
            return Err(self.malformed("a tensor has more than 64 axes"));
        }
        sizes.iter().map(|&n| self.length(n)).collect()
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), PickleError> {
        let at = self.at;
        match self.top()? {
            Value::Object(index) if matches!(self.objects[index], Object::List(_)) => {
                if let Object::List(list) = &mut self.objects[index] {
                    list.extend(items);
                }
                Ok(())
            }
            _ => Err(PickleError::Malformed { reason: "something other than a list is appended to", at }),
        }
    }

    fn pairs(&self, items: &[Value]) -> Result<Vec<(Value, Value)>, PickleError> {
        match items.as_chunks() {
            (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.malformed("a key has no value")),
        }
    }

    fn set_items(&mut self, items: &[Value]) -> Result<(), PickleError> {
        let (pairs, at) = (self.pairs(items)?, self.at);
        match self.top()? {
            Value::Object(index) if matches!(self.objects[index], Object::Dict(_)) => {
                if let Object::Dict(dict) = &mut self.objects[index] {
                    dict.extend(pairs);
                }
                Ok(())
            }
            _ => Err(PickleError::Malformed { reason: "something other than a dict is given items", at }),
        }
    }

    fn remember(&mut self, slot: u32) -> Result<(), PickleError> {
        let value = self.top()?;
        self.count()?;
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), PickleError> {
        let value = self.memo.get(&slot).copied();
        let value = value.ok_or_else(|| self.malformed("a value that was never remembered is asked for"))?;
        self.push(value)
    }

    /// The storage of a persistent id: `('storage', type, key, device, elements)`.
    fn storage(&self, id: Value) -> Result<Object, PickleError> {
        let &[kind, class, key, _, len] = self.tuple(id)? else {
            return Err(self.malformed("a persistent id is not that of a storage"));
        };
        match (self.text(kind)?, self.object(class)) {
            ("storage", Some(&Object::Global(Global::Storage(dtype)))) => {
                Ok(Object::Storage { dtype, key: self.text(key)?.to_owned(), len: self.length(len)? })
            }
            _ => Err(self.malformed("a persistent id is not that of a storage")),
        }
    }

    fn reduce(&mut self, function: Value, args: Value) -> Result<(), PickleError> {
        let Some(&Object::Global(global)) = self.object(function) else {
            return Err(self.malformed("something that is no name is called"));
        };
        let args = self.tuple(args)?;
        match (global, args) {
            (Global::OrderedDict, []) => self.push_object(Object::Dict(Vec::new())),
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                let Some(Object::Storage { dtype, key, len }) = self.object(storage) else {
                    return Err(self.malformed("a tensor has no storage"));
                };
                let tensor = TensorView {
                    storage: key.clone(),
                    dtype: *dtype,
                    storage_len: *len,
                    offset: self.length(offset)?,
                    shape: self.lengths(shape)?,
                    strides: self.lengths(strides)?,
                };
                self.push_object(Object::Tensor(tensor))
            }
            (Global::RebuildParameter, &[tensor, ..])
                if matches!(self.object(tensor), Some(Object::Tensor(_))) =>
            {
                self.push(tensor)
            }
            (Global::Size, &[sizes]) if self.tuple(sizes).is_ok() => self.push(sizes),
            _ => Err(self.malformed("a name is called with arguments that it does not take")),
        }
    }

    fn state_dict(&self, value: Value) -> Result<BTreeMap<String, TensorView>, PickleError> {
        let Some(Object::Dict(pairs)) = self.object(value) else {
            return Err(PickleError::NoTensor { entry: "what it holds".to_owned() });
        };
        let mut tensors = BTreeMap::new();
        for &(key, value) in pairs {
            let name = self.text(key)?;
            match self.object(value) {
                Some(Object::Tensor(tensor)) => tensors.insert(name.to_owned(), tensor.clone()),
                _ => return Err(PickleError::NoTensor { entry: shown(name) }),
            };
        }
        Ok(tensors)
    }
}

/// A little-endian two's complement integer of at most 64 bits.
fn integer(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let sign = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut padded = [if sign { 0xff } else { 0 }; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(padded))
}

/// A name from a file, sanitized for an error.
fn shown(name: &str) -> String {
    const LONGEST: usize = 200;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", name[..end].escape_debug()),
        None => name.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_are_read() {
        assert_eq!(integer(&[]), Some(0));
        assert_eq!(integer(&[0xff, 0]), Some(255));
        assert_eq!(integer(&[0xff]), Some(-1));
        assert_eq!(integer(&[0, 0, 0, 0, 0, 0, 0, 0x80]), Some(i64::MIN));
        assert_eq!(integer(&[0; 9]), None);
    }

    #[track_caller]
    fn check_refused(pickle: &[u8], expected: PickleError) {
        assert_eq!(read_state_dict(pickle).unwrap_err(), expected);
    }

    #[test]
    fn a_name_that_weights_do_not_need_is_refused_by_name() {
        let name = |name: &str| PickleError::Global { name: name.to_owned() };
        check_refused(b"\x80\x02cbuiltins\nprint\n.", name("builtins.print"));
        check_refused(b"\x80\x04\x8c\x04math\x8c\x04sqrt\x93.", name("math.sqrt"));
        check_refused(
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n.",
            name("torch._utils._rebuild_tensor_v3"),
        );
        check_refused(b"\x80\x02ca\x1b\nb\n.", name("a\\u{1b}.b"));
    }

    #[test]
    fn an_instruction_that_weights_do_not_need_is_refused_by_number() {
        for opcode in [b'i', b'o', 0x81, 0x92, b'P', 0x82, 0x97, 0x00, 0xff] {
            check_refused(&[0x80, 2, opcode], PickleError::Opcode { opcode, at: 2 });
        }
    }

    #[test]
    fn instructions_that_do_not_fit_are_refused() {
        check_refused(b"", PickleError::Truncated { at: 0 });
        check_refused(b"\x80\x02X\xff\xff\xff\xff", PickleError::Truncated { at: 7 });
        for pickle in [
            &b"\x80\x02."[..],
            b"\x80\x02t.",
            b"\x80\x02(0.",
            b"\x80\x02h\x07.",
            b"\x80\x02]K\x01K\x02s.",
            b"\x80\x02}(K\x01u.",
            b"\x80\x02K\x01K\x02R.",
            b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
            b"\x80\x02)Q.",
            b"\x80\x02]}b.",
            b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\0\0.",
        ] {
            let error = read_state_dict(pickle).unwrap_err();
            assert!(matches!(error, PickleError::Malformed { .. }), "{pickle:?}: {error}");
        }
        let long = [&b"\x80\x02X\x01\x04\0\0"[..], &[b'a'; MAX_TEXT + 1], b"."].concat();
        assert!(matches!(read_state_dict(&long), Err(PickleError::Malformed { .. })));
        check_refused(b"\x80\x02K\x01.", PickleError::NoTensor { entry: "what it holds".to_owned() });
        check_refused(
            b"\x80\x02}X\x05\0\0\0epochK\x01s.",
            PickleError::NoTensor { entry: "epoch".to_owned() },
        );
    }

    #[test]
    fn a_list_that_holds_itself_is_no_state_dict() {
        let error = read_state_dict(b"\x80\x02]q\x00h\x00a.").unwrap_err();
        assert!(matches!(error, PickleError::NoTensor { .. }), "{error}");
    }

    #[test]
    fn values_are_counted() {
        let mut pickle = vec![b'N'; MAX_VALUES + 1];
        pickle.push(b'.');
        check_refused(&pickle, PickleError::TooMany);
    }
}
