//! Servers as child processes: started with a log file, awaited by polling, stopped by their process ID.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::Must;

/// How long a server may take until it answers. All of them are up in a tenth of this on a slow machine.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a server may take to end after SIGTERM before SIGKILL follows.
const STOPS_WITHIN: Duration = Duration::from_secs(3);
/// How long a command line tool may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a socket or a process. Servers are up in 30 to 100 ms.
const POLL: Duration = Duration::from_millis(4);
/// The exit code of `setpriv` when there is no such program.
const NOT_FOUND: i32 = 127;
/// How much of a log stands in a panic message.
const LOG_TAIL_LINES: usize = 25;

/// A free TCP port on loopback that nobody else gets while this value lives.
///
/// Binding port 0 and letting go would be a race between tests. This socket stays bound but never listens, and has
/// `SO_REUSEADDR`, as every server in Go has: then Linux lets the server listen on the port, but gives it
/// neither to another bind of port 0 nor to an outgoing connection.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reserved: TcpSocket,
}

impl Port {
    /// Reserves a free port.
    pub fn free() -> Self {
        let socket = TcpSocket::new_v4().must("making a socket");
        socket.set_reuseaddr(true).must("setting SO_REUSEADDR");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).must("binding a free port");
        let number = socket.local_addr().must("reading the port that was bound").port();
        Self { number, _reserved: socket }
    }

    /// The number.
    pub const fn number(&self) -> u16 {
        self.number
    }
}

/// By what a server shows that it answers.
#[derive(Debug, Clone)]
pub enum Ready {
    /// It accepts connections on this port of 127.0.0.1.
    Port(u16),
    /// It accepts connections on this unix socket.
    Socket(PathBuf),
}

impl Ready {
    async fn answers(&self) -> bool {
        match self {
            Self::Port(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await.is_ok(),
            Self::Socket(path) => UnixStream::connect(path).await.is_ok(),
        }
    }
}

/// What to start and how.
#[derive(Debug, Clone)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Launch {
    /// `name` names the log file; `program` is looked up on PATH unless it is a path.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Self { name: name.to_owned(), program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds a path as an argument.
    #[must_use]
    pub fn path(self, path: &Path) -> Self {
        self.arg(text(path))
    }

    /// Sets a variable of the environment; a later one of the same name wins.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Takes a variable back that was set here.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.retain(|(set, _)| set != name);
        self
    }

    /// Starts the server and waits until it answers. The log goes to `<logs>/<name>.log`.
    pub async fn start(self, logs: &Path, ready: Ready) -> Server {
        let mut server = Server { log: logs.join(format!("{}.log", self.name)), launch: self, ready, child: None, ended: None };
        server.start().await;
        server
    }

    /// `setpriv` lets the kernel kill the server when its parent dies, so that Ctrl-C or SIGKILL on the tests leaves
    /// none behind. It replaces itself by the program, so the process ID stays.
    fn command(&self, log: &Path) -> io::Result<Command> {
        let output = fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(command)
    }
}

/// A running server. Dropping it stops the process, also while a test panics.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    ready: Ready,
    log: PathBuf,
    /// Until it is reaped: after that its process ID may be another's.
    child: Option<Child>,
    ended: Option<ExitStatus>,
}

impl Server {
    /// Starts it again after [`Server::stop`] or [`Server::kill`], on the same port or socket, and waits until it answers.
    pub async fn start(&mut self) {
        self.spawn();
        let deadline = Instant::now() + READY_WITHIN;
        while !self.ready.answers().await {
            if let Some(status) = self.exit_status() {
                let hint = if status.code() == Some(NOT_FOUND) { "; integration/install-parts.sh installs what is missing" } else { "" };
                panic!("{} ended ({status}) before it answered{hint}; its log ends:\n{}", self.launch.name, self.log_tail());
            }
            assert!(
                Instant::now() < deadline,
                "{} did not answer in {READY_WITHIN:?}; its log ends:\n{}",
                self.launch.name,
                self.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts it without waiting: for a server that is expected to refuse.
    pub fn spawn(&mut self) {
        self.stop();
        let command = self.launch.command(&self.log).must(format_args!("opening {}", self.log.display()));
        let child = spawn_from_lasting_thread(command).must(format_args!("starting {}", self.launch.name));
        let _ = fs::write(self.log.with_extension("pid"), child.id().to_string());
        self.child = Some(child);
        self.ended = None;
    }

    /// Sets a variable of the environment for the next start.
    pub fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.launch = self.launch.clone().env(name, value);
    }

    /// Takes a variable of [`Server::set_env`] back for the next start.
    pub fn unset_env(&mut self, name: &str) {
        self.launch = self.launch.clone().without_env(name);
    }

    /// The process ID, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The exit status, once it has ended by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if let Some(child) = self.child.as_mut() {
            self.ended = child.try_wait().must("asking for a child's exit status");
            self.child = self.child.take().filter(|_| self.ended.is_none());
        }
        self.ended
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            tokio::time::sleep(POLL).await;
        }
        None
    }

    /// Everything it has written so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// SIGTERM, then SIGKILL when that does not help in time.
    pub fn stop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        self.reap(STOPS_WITHIN);
    }

    /// SIGKILL, as a crash would end it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.reap(STOPS_WITHIN);
    }

    /// Stops its execution: it keeps its port and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`Server::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Tells it to read its configuration again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Asks it to end without waiting, so that several servers can end at the same time.
    pub fn begin_stop(&self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
    }

    // A child that was reaped is forgotten, so the process ID cannot have been given to another process meanwhile.
    fn signal(&self, signal: Signal) {
        let Some(pid) = self.pid().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else { return };
        let _ = kill_process(pid, signal);
    }

    fn reap(&mut self, within: Duration) {
        let Some(mut child) = self.child.take() else { return };
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The parent-death signal follows the *thread* that started the child, not the process: a child started by a
/// test's thread or by one of the runtime's blocking threads would be killed as soon as that thread ends.
/// So all children are started by one thread that lives as long as the process.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).map_err(|_| io::Error::other("the thread that starts servers is gone"))?;
    answer.recv().map_err(io::Error::other)?
}

/// Runs a command line tool to its end, whatever its exit code.
pub async fn run(mut command: tokio::process::Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let output = tokio::time::timeout(COMMAND_WITHIN, command.output()).await;
    output.must(format_args!("waiting for {shown}")).must(format_args!("running {shown}"))
}

/// Runs a command line tool that has to succeed, and returns what it printed.
pub async fn run_well(command: tokio::process::Command) -> String {
    let shown = format!("{:?}", command.as_std());
    let output = run(command).await;
    assert!(output.status.success(), "{shown} failed ({})\n{}{}", output.status, lossy(&output.stdout), lossy(&output.stderr));
    lossy(&output.stdout)
}

/// Output of a tool as text.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A path as text; the harness makes only paths that are.
pub fn text(path: &Path) -> String {
    path.to_str().must("reading a path as text").to_owned()
}
