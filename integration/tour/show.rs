//! What the demo prints. Colour is only for a terminal, and nothing is told by colour alone.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Lines are broken here, so that they fit a usual terminal.
const WIDTH: usize = 110;
/// Where the texts of a step begin.
const INDENT: usize = 14;
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// What one step is about.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it shows, in one sentence.
    pub title: &'static str,
    /// What is done: commands that do the same, and words where there is no command.
    pub done: Vec<String>,
    /// What must happen.
    pub expected: String,
}

/// What happened, line by line; an error when it is not what must happen.
pub type Outcome = Result<Vec<String>, Vec<String>>;

/// Where the demo is shown.
pub struct Show {
    out: Box<dyn Write + Send>,
    colour: bool,
    began: Instant,
}

impl std::fmt::Debug for Show {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Show").field("colour", &self.colour).finish_non_exhaustive()
    }
}

impl Show {
    /// Shows it on `out`.
    pub fn new(out: Box<dyn Write + Send>, colour: bool) -> Self {
        Self { out, colour, began: Instant::now() }
    }

    /// What this is.
    pub fn beginning(&mut self, binary: &Path) {
        let title = self.painted(BOLD, "countersign: only signed images run");
        self.print(&format!("\n{title}\n\n"));
        self.print(
            "On every node of a Kubernetes cluster, kubelet asks containerd to pull images and to run containers.\n\
             countersign stands between the two and lets only those images through that people you trust have signed.\n\
             Everything below is real, runs on this machine for this demo only, and is removed at its end.\n\n",
        );
        self.print(&format!("Setting up, with {} ...\n", binary.display()));
    }

    /// What the second part is.
    pub fn second_beginning(&mut self) {
        self.began = Instant::now();
        self.print("\nNow a cluster: a tag must mean one thing on all its nodes. Setting up two nodes and what they share ...\n");
    }

    /// What was set up.
    pub fn set_up(&mut self, servers: &[[String; 2]]) {
        for [name, what] in servers {
            self.print(&format!("  {name:16}{what}\n"));
        }
        let took = seconds(self.began.elapsed());
        self.print(&format!("  ready after {took}\n"));
    }

    /// What is about to be done.
    pub fn step(&mut self, number: usize, step: &Step) {
        let title = self.painted(BOLD, &format!("{number}. {}", step.title));
        self.print(&format!("\n{title}\n"));
        for (index, line) in step.done.iter().enumerate() {
            self.labelled(if index == 0 { "done" } else { "" }, line, Some(DIM));
        }
        self.labelled("expected", &step.expected, None);
        self.began = Instant::now();
    }

    /// What came of it.
    pub fn outcome(&mut self, outcome: &Outcome) {
        let (lines, mark, colour, word) = match outcome {
            Ok(lines) => (lines, "✓", GREEN, "as expected"),
            Err(lines) => (lines, "✗", RED, "NOT as expected"),
        };
        for (index, line) in lines.iter().enumerate() {
            self.labelled(if index == 0 { "happened" } else { "" }, line, None);
        }
        let (mark, took) = (self.painted(colour, &format!("{mark} {word}")), seconds(self.began.elapsed()));
        self.print(&format!("   {mark}, {took}\n"));
    }

    /// The end, when everything is taken down.
    pub fn end(&mut self, steps: &[bool], took: Duration) {
        let failed: Vec<String> = (1..).zip(steps).filter(|(_, good)| !**good).map(|(number, _)| number.to_string()).collect();
        let verdict = if failed.is_empty() {
            self.painted(GREEN, &format!("✓ All {} steps did what they must", steps.len()))
        } else {
            self.painted(RED, &format!("✗ Not as expected: step {} of {}", failed.join(", "), steps.len()))
        };
        self.print(&format!("\n{verdict}, in {} with set-up and removal.\n", seconds(took)));
    }

    fn labelled(&mut self, label: &str, text: &str, colour: Option<&str>) {
        for (index, line) in wrapped(text, WIDTH - INDENT).iter().enumerate() {
            let line = colour.map_or_else(|| line.clone(), |colour| self.painted(colour, line));
            let label = if index == 0 { label } else { "" };
            self.print(&format!("   {label:width$}{line}\n", width = INDENT - 3));
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A terminal that is gone is no reason to leave things running.
    fn print(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Breaks a text between words; a longer word stays whole, so that it can be copied.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.extend([" ", word]),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
