//! Joining and leaving a run: MPI, the devices of all ranks, and the transport of their tensors.

use std::sync::Arc;

use anyhow::{Error, Result};
use mpi::environment::{Universe, library_version};
use tch::Device;

use crate::agreement::agree;
use crate::communicator::Communicator;
use crate::devices::{Found, Plan, assign, device, map, places};
use crate::launcher_variables::started_by_mpi;
use crate::nccl::{Limits, Nccl, Place};
use crate::refusal::Refusal;
use crate::request::Request;
use crate::single::Single;
use crate::{machine, mpi as host, mpi_family, nccl};

/// The ranks of a run before they have chosen devices: they can agree on what they read. Its drop is `MPI_Finalize`.
pub struct World {
    /// What this rank uses to talk to the others.
    pub ranks: Arc<dyn Communicator>,
    local_rank: usize,
    universe: Option<Universe>,
}

impl World {
    /// Joins the run this process was started for: that of `mpirun` (or another MPI launcher), or a run of one.
    ///
    /// # Errors
    /// A [`Refusal`](crate::Refusal) of an MPI library that does not fit this program, or MPI cannot be initialised.
    pub fn join() -> Result<Self> {
        if !started_by_mpi() {
            return Ok(Self { ranks: Arc::new(Single), local_rank: 0, universe: None });
        }
        mpi_family::check()?;
        let (universe, communicator) = host::initialise()?;
        let local_rank = communicator.local_rank();
        Ok(Self { ranks: Arc::new(communicator), local_rank, universe: Some(universe) })
    }
}

/// Membership in a run. Its drop is `MPI_Finalize`, so it lives in `main` and nowhere else.
pub struct Session {
    /// What this rank uses to talk to the others.
    pub ranks: Arc<dyn Communicator>,
    /// Where this rank computes.
    pub device: Device,
    /// This rank's number among those of its node.
    pub local_rank: usize,
    /// The number of threads this rank computes with.
    pub threads: usize,
    /// The word for the transport in logs.
    pub backend: &'static str,
    /// Where each rank computes and with how many threads, in rank order.
    pub places: Vec<String>,
    /// The same for people: a line for each rank, or for each host where they are many.
    pub map: Vec<String>,
    /// What people should be told of how this session works.
    pub notes: Vec<String>,
    nccl: Option<Arc<Nccl>>,
    universe: Option<Universe>,
}

impl Session {
    /// Chooses devices and transport together with the other ranks.
    ///
    /// # Errors
    /// The same on all ranks: a [`Refusal`](crate::Refusal) of what was asked for, or GPUs or NCCL that fail.
    pub fn join(world: World, request: &Request) -> Result<Self> {
        // MPI lives to the end of the process, so what fails here fails on all ranks, which leave it in order.
        let World { ranks, local_rank, universe } = world;
        let rank = ranks.rank();
        let mine = agree(ranks.as_ref(), machine::look(request), |error| error.is::<Refusal>())?;
        let found = ranks.gather(&serde_json::to_string(&mine)?)?;
        let found: Vec<Found> = found.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
        let plan = assign(&found, request, universe.is_some())?;
        let threads = mine.threads_among(&found);
        tch::set_num_threads(threads as i32);
        torch_ext::keep_memory();
        torch_ext::exact_arithmetic().map_err(Error::msg)?;
        let mut session = Self {
            ranks,
            device: device(plan.gpus[rank], machine::on_host()),
            local_rank,
            threads,
            backend: if universe.is_some() { "mpi" } else { "single" },
            places: places(&found, &plan),
            map: map(&found, &plan),
            notes: machine::notes(),
            nccl: None,
            universe,
        };
        if plan.nccl {
            session.connect(&found, &plan, request)?;
        }
        if request.windows && session.nccl.is_none() {
            session.notes.push("comm.windows: sums do not travel by NCCL here, and the key has no effect".into());
        }
        session.notes.extend(plan.notes);
        Ok(session)
    }

    /// Lets tensors travel by NCCL.
    fn connect(&mut self, found: &[Found], plan: &Plan, request: &Request) -> Result<()> {
        let rank = self.ranks.rank();
        let (mine, Some(gpu)) = (&found[rank], plan.gpus[rank]) else { return Ok(()) };
        if plan.shared {
            let one_host = found.iter().all(|other| other.is_beside(mine));
            self.notes.push(machine::share_gpus(rank, one_host));
        }
        let name = format!("rank {rank} of {} on {}", found.len(), mine.at(Some(gpu)));
        if request.in_graphs {
            self.notes.extend(machine::order_sums());
        }
        let place = Place { gpu, tensors: self.device, name, in_graphs: request.in_graphs, windows: request.windows };
        let limits = Limits::new(mine.timeout.as_deref()).map_err(Error::msg)?;
        let nccl = Arc::new(Nccl::connect(Arc::clone(&self.ranks), place, limits, Arc::clone(&request.report))?);
        self.ranks = Arc::clone(&nccl) as Arc<dyn Communicator>;
        self.notes.extend(nccl::note());
        self.notes.extend(nccl.notes.clone());
        (self.nccl, self.backend) = (Some(nccl), "nccl");
        Ok(())
    }

    /// Whether MPI was started.
    pub(crate) fn has_mpi(&self) -> bool {
        self.universe.is_some()
    }

    /// The transport between GPUs, where it is NCCL.
    pub(crate) fn nccl(&self) -> Option<&Arc<Nccl>> {
        self.nccl.as_ref()
    }

    /// The versions of the libraries at work, for logs.
    pub fn libraries(&self) -> String {
        let mpi = self
            .universe
            .as_ref()
            .map_or("none".to_string(), |_| mpi_family::name_of(&library_version().unwrap_or_default()));
        let nccl = self.nccl.as_ref().map_or(String::new(), |_| format!(", NCCL {}", nccl::version()));
        format!("libtorch {}, MPI {mpi}{nccl}", torch_ext::version())
    }

    /// Leaves the run in good order: waits for the other ranks, then ends NCCL and MPI.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn leave(self) -> Result<()> {
        self.ranks.barrier()?;
        if let Some(nccl) = &self.nccl {
            nccl.close();
        }
        drop(self.universe);
        Ok(())
    }
}
