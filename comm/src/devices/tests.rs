use std::sync::Arc;

use super::places::spans;
use super::*;
use crate::gpu::Gpu;
use crate::request::{Backend, Compute, Request};

/// GPU `place` of a host, which makes its identity.
fn gpu(host: &str, place: usize) -> Gpu {
    let (name, uuid) = ("NVIDIA H100".to_string(), format!("GPU-{host}-{place}"));
    Gpu { name, uuid, pci: format!("0000:{:02x}:00.0", 16 * place), numa: Some(place / 4) }
}

/// A rank on `host` that sees these of its GPUs.
fn rank(host: &str, gpus: &[usize]) -> Found {
    Found {
        host: host.into(),
        kernel: format!("boot of {host}"),
        gpus: gpus.iter().map(|&place| gpu(host, place)).collect(),
        without_nccl: None,
        timeout: None,
        cores: ("0-63".into(), 64),
        threads: None,
    }
}

fn request(backend: Backend) -> Request {
    Request {
        compute: Compute::Auto,
        backend,
        share_gpus: false,
        in_graphs: false,
        windows: false,
        report: Arc::new(|_| {}),
    }
}

const ALL: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// The GPUs of all ranks under mpirun with nothing configured.
#[track_caller]
fn gpus(found: &[Found]) -> Vec<usize> {
    let plan = assign(found, &request(Backend::Auto), true).unwrap();
    assert!(plan.nccl && !plan.shared && plan.notes.is_empty(), "{plan:?}");
    plan.gpus.into_iter().flatten().collect()
}

#[track_caller]
fn refused(found: &[Found], request: &Request, parts: &[&str]) {
    let said = assign(found, request, true).unwrap_err().to_string();
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}

#[test]
fn eight_ranks_take_the_eight_gpus_that_all_see() {
    assert_eq!(gpus(&vec![rank("a", &ALL); 8]), ALL);
}

#[test]
fn ranks_that_see_one_gpu_each_take_it() {
    assert_eq!(gpus(&ALL.map(|place| rank("a", &[place]))), [0; 8]);
}

#[test]
fn ranks_of_two_hosts_start_anew_on_each_in_whatever_order() {
    let (a, b) = (rank("a", &ALL[..4]), rank("b", &ALL[..4]));
    let blocks = [vec![a.clone(); 4], vec![b.clone(); 4]].concat();
    assert_eq!(gpus(&blocks), [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(gpus(&[a.clone(), b.clone(), a, b]), [0, 0, 1, 1]);
}

#[test]
fn ranks_that_see_a_part_of_the_host_divide_that_part() {
    let (left, right) = (rank("a", &[0, 1]), rank("a", &[2, 3]));
    assert_eq!(gpus(&[left.clone(), left, right.clone(), right]), [0, 1, 0, 1]);
}

#[test]
fn fewer_ranks_than_gpus_take_the_first() {
    assert_eq!(gpus(&vec![rank("a", &ALL); 3]), [0, 1, 2]);
}

#[test]
fn hosts_of_one_name_are_told_apart_by_their_kernels() {
    let mut other = rank("localhost", &[0]);
    other.kernel = "another".into();
    other.gpus[0].uuid = "GPU-other".into();
    assert_eq!(gpus(&[rank("localhost", &[0]), other]), [0, 0]);
}

#[test]
fn more_ranks_than_gpus_are_refused_with_the_right_number() {
    let parts = ["5 on a, for 4 visible GPUs", "ppr:4:node", "--ranks 4", "comm.share_gpus = true"];
    refused(&vec![rank("a", &ALL[..4]); 5], &request(Backend::Auto), &parts);
    refused(&vec![rank("a", &[0]); 2], &request(Backend::Mpi), &["2 on a, for 1 visible GPU;"]);
}

#[test]
fn one_gpu_for_two_ranks_is_found_by_its_identity_or_place() {
    let overlap = [rank("a", &[0, 1]), rank("a", &[1])];
    assert_eq!(gpus(&overlap), [0, 0]);
    let overlap = [rank("a", &[1, 0]), rank("a", &[1])];
    let parts = ["the GPU is the same for ranks 0 and 1: GPU-a-1 at 0000:10:00.0 of a", "CUDA_VISIBLE_DEVICES"];
    refused(&overlap, &request(Backend::Auto), &parts);
    refused(&overlap, &request(Backend::Mpi), &parts);
    // In containers of one machine, which have names of their own.
    let mut contained = rank("b", &[0]);
    contained.gpus = rank("a", &[0]).gpus;
    refused(&[rank("a", &[0]), contained], &request(Backend::Auto), &["ranks 0 and 1: GPU-a-0"]);
}

#[test]
fn parts_of_one_gpu_do_for_mpi_and_not_for_nccl() {
    let mut part = rank("a", &[0]);
    part.gpus[0].uuid = "MIG-1".into();
    let parts = [rank("a", &[0]), part];
    refused(&parts, &request(Backend::Auto), &["ranks 0 and 1: MIG-1 at 0000:00:00.0"]);
    assert_eq!(assign(&parts, &request(Backend::Mpi), true).unwrap().gpus, [Some(0), Some(0)]);
}

#[test]
fn ranks_share_gpus_in_turn_when_they_may() {
    let may = Request { share_gpus: true, ..request(Backend::Auto) };
    let plan = assign(&vec![rank("a", &ALL[..2]); 5], &may, true).unwrap();
    assert_eq!(plan.gpus, [0, 1, 0, 1, 0].map(Some));
    assert!(plan.shared && plan.nccl && plan.notes[0].contains("SHARE"), "{plan:?}");
    // Where there are enough, nothing is shared.
    assert!(!assign(&vec![rank("a", &ALL); 8], &may, true).unwrap().shared);
}

#[test]
fn ranks_that_share_pose_as_hosts_and_talk_by_sockets() {
    let names = |rank, one_host| -> Vec<String> {
        sharing_variables(rank, one_host).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    assert!(names(3, true).contains(&"NCCL_HOSTID=iad-rank-3".to_string()));
    assert_ne!(names(0, true)[0], names(1, true)[0]);
    assert!(!names(0, false).iter().any(|variable| variable.ends_with("=lo")), "lo does not reach other hosts");
}

#[test]
fn gpus_on_some_ranks_only_are_refused() {
    let mixed = [rank("a", &[0]), rank("b", &[]), rank("b", &[])];
    for backend in [Backend::Auto, Backend::Nccl, Backend::Mpi] {
        refused(&mixed, &request(backend), &["2 of 3 ranks see no GPU (rank 1 on b is the first)", "--device cpu"]);
    }
}

#[test]
fn without_gpus_it_is_mpi_unless_nccl_was_asked_for() {
    let found = vec![rank("a", &[]); 2];
    for backend in [Backend::Auto, Backend::Mpi] {
        let plan = assign(&found, &request(backend), true).unwrap();
        assert_eq!(plan, Plan { gpus: vec![None, None], nccl: false, shared: false, notes: vec![] });
    }
    refused(&found, &request(Backend::Nccl), &["comm.backend is nccl, and no rank sees a GPU", "\"auto\""]);
    let cpu = Request { compute: Compute::Cpu, ..request(Backend::Nccl) };
    refused(&found, &cpu, &["--device cpu", "leave one of them out"]);
}

#[test]
fn the_transport_between_gpus_is_what_was_asked_for() {
    let found = [rank("a", &ALL), rank("a", &ALL)];
    let plan = assign(&found, &request(Backend::Mpi), true).unwrap();
    assert!(!plan.nccl && plan.notes[0].contains("memory of the hosts"), "{plan:?}");
    // A rank alone has nobody to talk to, but may try NCCL.
    let alone = |backend| assign(&found[..1], &request(backend), false).unwrap();
    assert!(!alone(Backend::Auto).nccl && alone(Backend::Auto).notes.is_empty());
    assert!(alone(Backend::Nccl).nccl);
    assert!(alone(Backend::Mpi).notes.is_empty());
}

#[test]
fn nccl_that_does_not_load_is_refused_and_not_replaced() {
    let mut lacking = rank("b", &[0]);
    lacking.without_nccl = Some("libnccl.so: no such file".into());
    let found = [rank("a", &[0]), lacking];
    let parts = ["on rank 1 (b) it does not load: libnccl.so: no such file", "scripts/setup", "comm.backend = \"mpi\""];
    refused(&found, &request(Backend::Auto), &parts);
    refused(&found, &request(Backend::Nccl), &parts);
    assert!(!assign(&found, &request(Backend::Mpi), true).unwrap().nccl);
}

#[test]
fn a_wrong_limit_of_time_is_refused_where_it_matters() {
    let mut wrong = rank("a", &[0]);
    wrong.timeout = Some("ten".into());
    refused(
        &[wrong.clone()],
        &request(Backend::Nccl),
        &["IAD_NCCL_TIMEOUT is \"ten\" on a", "whole number of seconds"],
    );
    assert!(assign(&[wrong], &request(Backend::Mpi), true).is_ok());
}

#[test]
fn cores_are_divided_among_those_who_may_use_the_same() {
    let mut bound = vec![rank("a", &[]), rank("a", &[]), rank("b", &[])];
    assert_eq!(bound[0].threads_among(&bound), 32);
    assert_eq!(bound[2].threads_among(&bound), 64);
    bound[0].cores = ("0-1".into(), 2);
    assert_eq!((bound[0].threads_among(&bound), bound[1].threads_among(&bound)), (2, 64));
    bound[1].threads = Some(3);
    assert_eq!(bound[1].threads_among(&bound), 3);
    let crowd = vec![Found { cores: ("0".into(), 1), ..rank("a", &[]) }; 9];
    assert_eq!(crowd[0].threads_among(&crowd), 1);
}

#[test]
fn the_map_has_a_line_for_each_rank_or_for_each_host() {
    let lines = |found: &[Found]| map(found, &assign(found, &request(Backend::Auto), true).unwrap());
    let few = lines(&[rank("a", &ALL), rank("a", &ALL)]);
    let first = "rank 0 on a: GPU 0 (NVIDIA H100, GPU-a-0, 0000:00:00.0, NUMA node 0), cores 0-63, 32 threads";
    assert_eq!((few.len(), few[0].as_str()), (2, first));
    let many = [vec![rank("a", &ALL); 8], vec![rank("b", &ALL); 8], vec![rank("c", &ALL); 1]].concat();
    let expected = [
        "ranks 0-7 on a: NVIDIA H100, 64 threads in all",
        "ranks 8-15 on b: NVIDIA H100, 64 threads in all",
        "rank 16 on c: NVIDIA H100, 64 threads in all",
    ];
    assert_eq!(lines(&many), expected);
    assert_eq!(lines(&many[..16]).len(), 16);
    let cpus = vec![rank("a", &[]); 17];
    let plan = assign(&cpus, &request(Backend::Auto), true).unwrap();
    assert_eq!(map(&cpus, &plan), ["ranks 0-16 on a: CPU, 51 threads in all"]);
    assert_eq!(spans(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
}
