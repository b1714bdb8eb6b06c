//! The functions and classes that the pickle of a checkpoint may name.

use tch::Kind;

/// Functions and classes that a checkpoint may name beside arrays of NumPy: tensors, containers, and what stands beside the weights in
/// checkpoints of real projects.
const OWN: [&str; 43] = [
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.FloatStorage",
    "torch.DoubleStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "torch.Size",
    "torch.device",
    "torch.float32",
    "torch.float64",
    "torch.float16",
    "torch.bfloat16",
    "torch.int64",
    "torch.int32",
    "torch.int16",
    "torch.int8",
    "torch.uint8",
    "torch.bool",
    "torch.strided",
    "torch.contiguous_format",
    "builtins.dict",
    "builtins.list",
    "builtins.tuple",
    "builtins.int",
    "builtins.float",
    "builtins.bool",
    "builtins.str",
    "__builtin__.dict",
    "__builtin__.list",
    "__builtin__.tuple",
    "__builtin__.int",
    "__builtin__.float",
    "__builtin__.str",
];

/// All functions and classes that a checkpoint may name.
pub fn names() -> Vec<&'static str> {
    [&OWN[..], &datasets::PICKLED_ARRAY_NAMES].concat()
}

/// The type of a storage's elements.
pub fn kind_of_storage(class: &str) -> Option<Kind> {
    Some(match class.strip_prefix("torch.")?.strip_suffix("Storage")? {
        "Float" => Kind::Float,
        "Double" => Kind::Double,
        "Half" => Kind::Half,
        "BFloat16" => Kind::BFloat16,
        "Long" => Kind::Int64,
        "Int" => Kind::Int,
        "Short" => Kind::Int16,
        "Char" => Kind::Int8,
        "Byte" => Kind::Uint8,
        "Bool" => Kind::Bool,
        _ => return None,
    })
}
