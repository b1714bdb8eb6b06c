//! Export: weights of this program become a file that PyTorch reads.

use std::path::Path;

use anyhow::{Context, Result};
use datasets::{UserError, refuse_existing};
use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};

use super::{archive, read_bytes, tensors};
use crate::checkpoint::{self, Tensors, bytes_of, write_atomically};
use crate::model::{Architecture, Form, outline};

/// What was exported.
#[derive(Debug)]
pub struct Exported {
    /// The network.
    pub form: Form,
    /// How many tensors the file holds.
    pub tensors: usize,
}

/// Writes the network of `file`, weights or a checkpoint of this program, to `to`: a state_dict under PyTorch's names and in
/// its order, by `torch.save` (`.pth`, `.pt`) or as safetensors (`.safetensors`).
///
/// # Errors
/// A [`UserError`] for a file that is not ours, another ending, or an existing target; anything the file system says.
pub fn export(file: &Path, to: &Path) -> Result<Exported> {
    let write = match to.extension().and_then(|extension| extension.to_str()) {
        Some("pth" | "pt") => torch_save,
        Some("safetensors") => safetensors,
        _ => {
            let error = UserError::expected("a name that ends in .pth, .pt or .safetensors").file(to).key("--to");
            return Err(error.value("another ending").into());
        }
    };
    refuse_existing(to).map_err(|error| error.key("--to"))?;
    read_bytes(file)?;
    let (header, found) = checkpoint::read(file).map_err(|problem| {
        UserError::expected("weights or a checkpoint of this program")
            .file(file)
            .key("the file")
            .value(format!("{problem:#}"))
            .hint("`iad-launch weights info FILE` says what it is")
    })?;
    let state = state_dict(header.form, &found).with_context(|| format!("exporting {}", file.display()))?;
    write_atomically(to, &write(&state)?)?;
    Ok(Exported { form: header.form, tensors: state.len() })
}

/// The tensors by PyTorch's names, in the order of its state_dict.
fn state_dict(form: Form, found: &Tensors) -> Result<Vec<(String, Tensor)>> {
    let mut state: Vec<(String, Tensor)> = vec![];
    for (name, _) in outline(form) {
        let tensor = found.get(&format!("student/{name}")).with_context(|| format!("{name} is missing"))?;
        state.push((name.clone(), tensor.shallow_clone()));
        if let Some(layer) = name.strip_suffix("running_var") {
            let counter = format!("{layer}num_batches_tracked");
            let count = found.get(&format!("student/{counter}")).map(Tensor::shallow_clone);
            state.push((counter, count.unwrap_or_else(|| Tensor::from(0i64))));
        }
    }
    if matches!(form.architecture, Architecture::WideResNet { .. }) {
        add_unused_block(&mut state);
    }
    Ok(state)
}

/// The reference's WideResNet registers a copy of its first group that it never runs (`sub_block1`); loading asks for it.
fn add_unused_block(state: &mut Vec<(String, Tensor)>) {
    let unused = |(name, tensor): &(String, Tensor)| {
        let name = format!("sub_{name}");
        let tensor = if name.ends_with("running_var") { tensor.ones_like() } else { tensor.zeros_like() };
        (name, tensor)
    };
    let copies: Vec<_> = state.iter().filter(|(name, _)| name.starts_with("block1.")).map(unused).collect();
    let behind = state.iter().position(|(name, _)| name.starts_with("block2.")).unwrap_or(state.len());
    state.splice(behind..behind, copies);
}

fn safetensors(state: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let bytes: Vec<Vec<u8>> = state.iter().map(|(_, tensor)| bytes_of(tensor)).collect();
    let views = state.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let dtype = match tensor.kind() {
            Kind::Double => Dtype::F64,
            Kind::Int64 => Dtype::I64,
            _ => Dtype::F32,
        };
        let shape = tensor.size().into_iter().map(|size| size as usize).collect();
        Ok((name.as_str(), TensorView::new(dtype, shape, bytes)?))
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    let metadata = [("format".to_string(), "pt".to_string())].into();
    Ok(safetensors::serialize(views, Some(metadata))?)
}

/// What `torch.save` of an OrderedDict writes: a pickle, and each tensor's storage as a record of its own.
pub(super) fn torch_save(state: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let mut records = vec![
        ("archive/data.pkl".to_string(), pickle(state)),
        ("archive/.format_version".to_string(), b"1".to_vec()),
        ("archive/byteorder".to_string(), b"little".to_vec()),
    ];
    let storages = state.iter().enumerate();
    records.extend(storages.map(|(number, (_, tensor))| (format!("archive/data/{number}"), bytes_of(tensor))));
    records.push(("archive/version".to_string(), b"3\n".to_vec()));
    archive::write(&records)
}

/// The state_dict as a pickle of protocol 2, whose tensors name their storages by number.
fn pickle(state: &[(String, Tensor)]) -> Vec<u8> {
    const NEW_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = [b"\x80\x02", NEW_DICT, b"("].concat();
    for (number, (name, tensor)) in state.iter().enumerate() {
        let class = match tensor.kind() {
            Kind::Double => "DoubleStorage",
            Kind::Int64 => "LongStorage",
            _ => "FloatStorage",
        };
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{class}\n").bytes());
        text(&mut out, &number.to_string());
        text(&mut out, "cpu");
        integer(&mut out, tensor.numel() as i64);
        out.extend(b"tQ");
        integer(&mut out, 0);
        let shape = tensor.size();
        tuple(&mut out, &shape);
        tuple(&mut out, &tensors::strides(&shape));
        // It wants no gradient and has no hooks.
        out.push(0x89);
        out.extend([NEW_DICT, b"tR"].concat());
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn integer(out: &mut Vec<u8>, number: i64) {
    match i32::try_from(number) {
        Ok(number) => out.extend([&b"J"[..], &number.to_le_bytes()].concat()),
        Err(_) => out.extend([&b"\x8a\x08"[..], &number.to_le_bytes()].concat()),
    }
}

fn tuple(out: &mut Vec<u8>, numbers: &[i64]) {
    out.push(b'(');
    numbers.iter().for_each(|&number| integer(out, number));
    out.push(b't');
}
