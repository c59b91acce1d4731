//! Private NATS servers with JetStream: one, or a cluster.

use super::{eventually, port::Port, process::Process, servers};
use async_nats::jetstream;
use futures_util::TryStreamExt as _;
use rustix::process::Signal;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// One node or several that form a cluster. Each keeps its port and its store for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Nats {
    nodes: Vec<Node>,
    dir: TempDir,
}

#[derive(Debug)]
struct Node {
    name: String,
    port: Port,
    routes: Port,
    process: Option<Process>,
}

impl Nats {
    /// A single server.
    pub(crate) async fn start() -> Self {
        Self::cluster(1).await
    }

    /// A single server with more lines of configuration.
    pub(crate) async fn with(lines: &str) -> Self {
        Self::configured(1, lines).await
    }

    /// A cluster of `size` servers, once it has a leader.
    pub(crate) async fn cluster(size: usize) -> Self {
        Self::configured(size, "").await
    }

    async fn configured(size: usize, lines: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("headgate-nats-").tempdir().unwrap();
        let nodes: Vec<Node> = (0..size)
            .map(|n| Node { name: format!("n{n}"), port: Port::free(), routes: Port::free(), process: None })
            .collect();
        let routes: Vec<String> =
            nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.routes.number())).collect();
        for node in &nodes {
            let mut text = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{store}\" }}\n{lines}\n",
                name = node.name,
                port = node.port.number(),
                store = dir.path().join(&node.name).display(),
            );
            if size > 1 {
                // Not told to clients: one that was given a proxy's address must not find the way around it.
                text.push_str(&format!(
                    "cluster {{ name: test, listen: \"127.0.0.1:{}\", no_advertise: true, routes: [{}] }}\n",
                    node.routes.number(),
                    routes.join(", ")
                ));
            }
            std::fs::write(dir.path().join(format!("{}.conf", node.name)), text).unwrap();
        }
        let mut cluster = Self { nodes, dir };
        for node in 0..size {
            cluster.launch(node);
        }
        cluster.is_ready().await;
        cluster.has_all_peers().await;
        cluster
    }

    /// Waits until every node can hold a replica: a leader alone is not a cluster yet.
    async fn has_all_peers(&self) {
        let config = jetstream::stream::Config {
            name: "READY".to_owned(),
            subjects: vec!["ready".to_owned()],
            num_replicas: self.nodes.len(),
            storage: jetstream::stream::StorageType::Memory,
            ..Default::default()
        };
        let jetstream = self.jetstream().await;
        eventually("the cluster is whole", Duration::from_secs(30), || async {
            jetstream.create_stream(&config).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        jetstream.delete_stream("READY").await.unwrap();
    }

    /// Starts a stopped node on the same port and store, and waits until JetStream answers.
    pub(crate) async fn start_again(&mut self, node: usize) {
        self.launch(node);
        self.is_ready().await;
    }

    /// Starts a stopped node and waits for nothing.
    pub(crate) fn launch(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        assert!(node.process.is_none(), "{} is running", node.name);
        let mut command = Command::new(servers().join("nats/nats-server"));
        command.arg("-c").arg(self.dir.path().join(format!("{}.conf", node.name)));
        let log = self.dir.path().join(format!("{}.log", node.name));
        node.process = Some(Process::start("nats-server", command, &log));
    }

    async fn is_ready(&self) {
        eventually("JetStream answers", Duration::from_secs(30), || async {
            let client = async_nats::connect(self.urls()).await.map_err(|error| error.to_string())?;
            let mut jetstream = jetstream::new(client);
            jetstream.set_timeout(Duration::from_secs(1));
            jetstream.query_account().await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Kills a node.
    pub(crate) fn kill9(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill9();
        }
    }

    /// Ends a node in order, and waits for it.
    pub(crate) fn terminate(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.signal(Signal::TERM);
            process.wait(Duration::from_secs(30));
        }
    }

    /// Freezes a node: its connections stay open and nothing is answered.
    pub(crate) fn freeze(&self, node: usize) {
        self.process(node).signal(Signal::STOP);
    }

    /// Lets a frozen node go on.
    pub(crate) fn thaw(&self, node: usize) {
        self.process(node).signal(Signal::CONT);
    }

    fn process(&self, node: usize) -> &Process {
        self.nodes[node].process.as_ref().expect("the node runs")
    }

    /// The process id of a running node.
    #[allow(dead_code, reason = "for the benchmarks")]
    pub(crate) fn pid(&self, node: usize) -> u32 {
        self.process(node).pid().as_raw_nonzero().get().unsigned_abs()
    }

    /// The port of a node on 127.0.0.1.
    pub(crate) fn port(&self, node: usize) -> u16 {
        self.nodes[node].port.number()
    }

    /// The URLs of all nodes.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.port.number())).collect()
    }

    /// A new connection.
    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        let client = eventually("a connection to NATS", Duration::from_secs(10), || async {
            async_nats::connect(self.urls()).await.map_err(|error| error.to_string())
        })
        .await;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(Duration::from_secs(2));
        jetstream
    }

    /// The names of all streams.
    pub(crate) async fn streams(&self) -> Vec<String> {
        self.jetstream().await.stream_names().try_collect().await.unwrap()
    }

    /// Which node leads a stream.
    pub(crate) async fn leader(&self, stream: &str) -> usize {
        let jetstream = self.jetstream().await;
        eventually("the stream has a leader", Duration::from_secs(30), || async {
            let stream = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
            let leader = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.as_deref());
            let leader = leader.ok_or("no leader")?;
            self.nodes
                .iter()
                .position(|node| node.name == leader)
                .ok_or_else(|| format!("unknown leader {leader}"))
        })
        .await
    }

    /// Makes the leader of a stream hand over to another node.
    pub(crate) async fn step_down(&self, stream: &str) {
        let client = async_nats::connect(self.urls()).await.unwrap();
        client.request(format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), "".into()).await.unwrap();
    }

    /// Copies a node's store as it is on disk now.
    pub(crate) fn copy_store(&self, node: usize) -> TempDir {
        let copy = tempfile::Builder::new().prefix("headgate-store-").tempdir().unwrap();
        copy_folder(&self.store(node), copy.path());
        copy
    }

    /// Puts a copy back in the place of a stopped node's store: what came after the copy is lost.
    pub(crate) fn restore_store(&self, node: usize, copy: &TempDir) {
        assert!(self.nodes[node].process.is_none(), "the node runs");
        let store = self.store(node);
        std::fs::remove_dir_all(&store).unwrap();
        std::fs::create_dir(&store).unwrap();
        copy_folder(copy.path(), &store);
    }

    /// The same for one stream of it.
    pub(crate) fn restore_stream(&self, node: usize, copy: &TempDir, stream: &str) {
        assert!(self.nodes[node].process.is_none(), "the node runs");
        let folder = Path::new("jetstream/$G/streams").join(stream);
        let store = self.store(node).join(&folder);
        std::fs::remove_dir_all(&store).unwrap();
        std::fs::create_dir(&store).unwrap();
        copy_folder(&copy.path().join(&folder), &store);
    }

    fn store(&self, node: usize) -> PathBuf {
        self.dir.path().join(&self.nodes[node].name)
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success(), "cannot copy {}", from.display());
}
