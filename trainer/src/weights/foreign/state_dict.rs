//! Weights of this program as a state_dict of PyTorch: by `torch.save`, or as safetensors.

use anyhow::{Context, Result};
use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};

use crate::config::Architecture;
use crate::model::{ModelSpec, outline};
use crate::weights::checkpoint::{Tensors, bytes_of};
use crate::weights::foreign::dictionary::CLASS_NAMES;
use crate::weights::foreign::{archive, tensors};

/// The tensors under PyTorch's names, in the order of its state_dict.
///
/// # Errors
/// A tensor that is missing.
pub(super) fn state_dict(form: ModelSpec, found: &Tensors) -> Result<Vec<(String, Tensor)>> {
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

/// A safetensors file of these tensors, with the class names in its metadata.
///
/// # Errors
/// Tensors that the format does not take.
pub(super) fn safetensors(state: &[(String, Tensor)], class_names: &[String]) -> Result<Vec<u8>> {
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
    let bytes = safetensors::serialize(views, Some(metadata))?;
    if class_names.is_empty() {
        return Ok(bytes);
    }
    // The library writes several metadata in an order that differs from run to run.
    let (length, rest) = bytes.split_first_chunk().context("a header")?;
    let (header, values) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header)?;
    header["__metadata__"][CLASS_NAMES] = serde_json::to_string(class_names)?.into();
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes(), &header[..], values].concat())
}

/// The file that `torch.save` writes of an OrderedDict: a pickle, and each tensor's storage as a separate record. The class
/// names become an attribute of the OrderedDict.
///
/// # Errors
/// More than 4 GiB.
pub(super) fn torch_save(state: &[(String, Tensor)], class_names: &[String]) -> Result<Vec<u8>> {
    let mut records = vec![
        ("archive/data.pkl".to_string(), pickle(state, class_names)),
        ("archive/.format_version".to_string(), b"1".to_vec()),
        ("archive/byteorder".to_string(), b"little".to_vec()),
    ];
    let storages = state.iter().enumerate();
    records.extend(storages.map(|(number, (_, tensor))| (format!("archive/data/{number}"), bytes_of(tensor))));
    records.push(("archive/version".to_string(), b"3\n".to_vec()));
    archive::write(&records)
}

/// The state_dict as a pickle of protocol 2, whose tensors name their storages by number.
fn pickle(state: &[(String, Tensor)], class_names: &[String]) -> Vec<u8> {
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
    out.push(b'u');
    if !class_names.is_empty() {
        out.push(b'}');
        text(&mut out, CLASS_NAMES);
        out.extend(b"](");
        class_names.iter().for_each(|name| text(&mut out, name));
        out.extend(b"esb");
    }
    out.push(b'.');
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
