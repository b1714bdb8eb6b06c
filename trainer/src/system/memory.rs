//! The memory of this machine, and libtorch's errors when it is too small.

/// The bytes of memory of this machine, where the kernel tells.
pub fn total_memory() -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// The bytes that could be allocated now, where the kernel tells.
fn available_memory() -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

/// What to tell the user if `message` is libtorch's error of an allocation that failed.
pub fn out_of_memory(message: &str) -> Option<String> {
    let advice = "Lower batch.size, raise batch.accumulate, or choose a smaller network";
    if let Some((_, wanted)) = message.split_once("you tried to allocate ") {
        let wanted: String = wanted.chars().take_while(char::is_ascii_digit).collect();
        let there = available_memory().map_or("an unknown number of".to_string(), |bytes| bytes.to_string());
        return Some(format!("out of memory: {wanted} bytes were wanted, {there} bytes are there. {advice}"));
    }
    let (_, told) = message.split_once("CUDA out of memory. ")?;
    Some(format!("out of memory on the GPU: {told} {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_wanted_and_there_are_told() {
        let cpu = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
                   allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)";
        let told = out_of_memory(cpu).unwrap();
        assert!(told.contains("4000000000000 bytes were wanted") && told.contains("bytes are there"), "{told}");
        let gpu = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB.";
        assert!(out_of_memory(gpu).unwrap().contains("2.00 GiB. GPU 0"), "{:?}", out_of_memory(gpu));
        assert_eq!(out_of_memory("index out of range"), None);
        assert!(total_memory() > available_memory());
    }
}
