//! Machines of a small cluster, made of network namespaces: each has an address, a host name and a cable of its own.
//!
//! A node lives as long as its first process; with it go its network and its cable, so nothing is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{Program, Running};

/// Nodes 1, 2, ... at one switch.
pub struct Nodes {
    folder: tempfile::TempDir,
    switch: Namespace,
    nodes: Vec<Namespace>,
}

/// A process whose namespaces are the node.
struct Namespace(Child);

impl Namespace {
    fn new(name: &str) -> Result<Self> {
        let script = format!("hostname {name} && exec sleep 3600");
        let mut command = Command::new("unshare");
        command.args(["--net", "--uts", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
        let node = Self(command.spawn().context("starting unshare")?);
        let began = Instant::now();
        // It is another node once it has become `sleep`.
        while fs::read_to_string(format!("/proc/{}/comm", node.0.id())).unwrap_or_default().trim() != "sleep" {
            ensure!(began.elapsed() < Duration::from_secs(10), "the node {name} does not come up");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(node)
    }

    /// Runs a command of the network on it.
    fn ip(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.id().to_string(), "-n", "ip"]).args(arguments.split(' '));
        let output = command.output().context("starting nsenter")?;
        ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Nodes {
    /// Why this machine cannot have any; nothing where it can.
    pub fn missing() -> Option<String> {
        for command in [&["ip", "-V"][..], &["nsenter", "--version"], &["unshare", "--net", "--uts", "true"]] {
            let output = Command::new(command[0]).args(&command[1..]).output();
            match output {
                Err(error) => {
                    return Some(format!("{} is missing ({error}; install iproute2, util-linux)", command[0]));
                }
                Ok(output) if !output.status.success() => {
                    let reason = String::from_utf8_lossy(&output.stderr).trim().to_string();
                    return Some(format!("this user may not make network namespaces ({reason})"));
                }
                Ok(_) => {}
            }
        }
        None
    }

    /// So many nodes, 10.77.0.1 and on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(count: usize) -> Result<Self> {
        let switch = Namespace::new("switch")?;
        switch.ip("link add switch type bridge")?;
        switch.ip("link set switch up")?;
        let mut nodes = vec![];
        for number in 1..=count {
            let node = Namespace::new(&format!("node{number}"))?;
            switch.ip(&format!("link add cable{number} type veth peer name eth0 netns {}", node.0.id()))?;
            switch.ip(&format!("link set cable{number} master switch"))?;
            switch.ip(&format!("link set cable{number} up"))?;
            node.ip(&format!("addr add {}/24 dev eth0", address(number)))?;
            node.ip("link set eth0 up")?;
            node.ip("link set lo up")?;
            nodes.push(node);
        }
        let folder = tempfile::Builder::new().prefix("iad-nodes-").tempdir()?;
        // mpirun calls it in the place of ssh, with an address and a command.
        let mut agent = "#!/bin/sh\nhost=$1; shift\ncase $host in\n".to_string();
        for (index, node) in nodes.iter().enumerate() {
            agent += &format!("{}) node={} ;;\n", address(index + 1), node.0.id());
        }
        agent += "esac\nexec nsenter -t $node -n -u sh -c \"$*\"\n";
        let path = folder.path().join("agent");
        fs::write(&path, agent)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder, switch, nodes })
    }

    /// Takes a node off the network, silently: no connection of it is closed.
    ///
    /// # Errors
    /// The system refuses.
    pub fn cut(&self, node: usize) -> Result<()> {
        self.switch.ip(&format!("link set cable{node} down"))
    }

    /// Puts it back.
    ///
    /// # Errors
    /// The system refuses.
    pub fn mend(&self, node: usize) -> Result<()> {
        self.switch.ip(&format!("link set cable{node} up"))
    }

    /// The processes of `running` on that node.
    pub fn processes(&self, running: &Running, node: usize) -> Vec<u32> {
        let network = |process: u32| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let here = network(self.nodes[node - 1].0.id());
        running.all_processes().into_iter().filter(|&process| here.is_some() && network(process) == here).collect()
    }

    /// A command that runs another on that node.
    pub(crate) fn enter(&self, node: usize) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.nodes[node - 1].0.id().to_string(), "-n", "-u"]);
        command
    }

    /// `ADDRESS:SLOTS,ADDRESS:SLOTS`
    pub(crate) fn hosts(&self, on: &[usize], slots: usize) -> String {
        on.iter().map(|&node| format!("{}:{slots}", address(node))).collect::<Vec<_>>().join(",")
    }

    /// A file of the same.
    pub(crate) fn hostfile(&self, on: &[usize], slots: usize) -> PathBuf {
        let path = self.folder.path().join("hosts");
        let lines = on.iter().map(|&node| format!("{} slots={slots}\n", address(node)));
        let _ = fs::write(&path, lines.collect::<String>());
        path
    }

    /// Tells Open MPI how to reach the nodes: by TCP alone, since all memory is in truth that of one machine.
    pub(crate) fn connect(&self, program: Program) -> Program {
        let agent = self.folder.path().join("agent").display().to_string();
        let variables = [
            ("plm_rsh_agent", agent.as_str()),
            ("pml", "ob1"),
            ("btl", "tcp,self"),
            ("btl_tcp_if_include", "eth0"),
            ("oob_tcp_if_include", "eth0"),
        ];
        variables.iter().fold(program, |program, (name, value)| program.variable(&format!("OMPI_MCA_{name}"), value))
    }
}

/// The address of a node.
fn address(node: usize) -> String {
    format!("10.77.0.{node}")
}
