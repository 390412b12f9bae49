//! The second part of the tour: two nodes that share what tags mean.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::harness::containerd::Version;
use super::super::harness::etcd::EtcdOptions;
use super::super::harness::town::{At, One, Town, Two};
use super::show::{Outcome, Show, Step};

/// How long one node may take to hear of another.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// What the images print.
const OLD: &str = "old";
const NEW: &str = "new";

/// Sets up all it needs, shows every step, numbered from `first` on, and takes everything down. Gives back for each step whether
/// it did what it must.
pub async fn run(binary: &Path, show: &mut Show, first: usize) -> Vec<bool> {
    show.second_beginning();
    let town = Town::new(binary, Version::default(), "demo-nodes", EtcdOptions::OPEN, ["deny", "deny"]).await;
    show.set_up(&servers(&town));
    let mut good = Vec::new();
    for (number, step) in (first..).zip(steps(&town)) {
        show.step(number, &step);
        let outcome = match number - first {
            0 => keeps_one_digest(&town).await,
            1 => act(&town, Two, "update", [One, Two], NEW).await,
            _ => act(&town, One, "rollback", [One, Two], OLD).await,
        };
        show.outcome(&outcome);
        good.push(outcome.is_ok());
    }
    good
}

fn servers(town: &Town) -> Vec<[String; 2]> {
    [
        ("etcd", format!("what the nodes share, at {}; nothing in it is trusted", town.etcd.endpoint(0))),
        ("node-1, node-2", "each a countersign and a containerd of its own".to_owned()),
        ("countersign", "cluster init, and cluster enroll for each node: so each counts for the other".to_owned()),
        ("notary", format!("has signed {}, which prints \"{OLD}\"", town.name)),
    ]
    .map(|(name, what)| [name.to_owned(), what])
    .to_vec()
}

fn steps(town: &Town) -> Vec<Step> {
    let name = &town.name;
    vec![
        Step {
            title: "Two nodes keep one digest for a revision while the tag moves on",
            done: vec![
                "node-1: a pod of Deployment web, revision 5d4f.".to_owned(),
                format!("{name} is pushed and signed anew: it prints \"{NEW}\" now."),
                "node-2: a replica of 5d4f, and the first pod of the next revision, 7c9f.".to_owned(),
            ],
            expected: format!(
                "The replica prints \"{OLD}\" though its node has never seen that image; the next revision prints \"{NEW}\"."
            ),
        },
        Step {
            title: "An operator updates the revision, once for all nodes",
            done: vec!["node-2: countersign service update shop/deployment/web --revision 5d4f".to_owned()],
            expected: format!("Pods of 5d4f that are made from now on print \"{NEW}\" on both nodes."),
        },
        Step {
            title: "And takes it back",
            done: vec!["node-1: countersign service rollback shop/deployment/web --revision 5d4f".to_owned()],
            expected: format!("They print \"{OLD}\" again, on both nodes: its signatures still count."),
        },
    ]
}

async fn keeps_one_digest(town: &Town) -> Outcome {
    let mut happened = vec![prints(town, One, "5d4f", OLD).await?];
    town.tag_moves_to(&town.new).await;
    happened.push(prints(town, Two, "5d4f", OLD).await?);
    happened.push(prints(town, Two, "7c9f", NEW).await?);
    Ok(happened)
}

/// A command of one node that counts on all.
async fn act(town: &Town, at: At, command: &str, nodes: [At; 2], expected: &str) -> Outcome {
    let (code, said, complaint) = town.at(at, &["service", command, "shop/deployment/web", "--revision", "5d4f"]).await;
    let mut happened: Vec<String> = said.lines().chain(complaint.lines()).map(|line| line.trim().to_owned()).collect();
    if code != Some(0) {
        return Err(happened);
    }
    for node in nodes {
        match soon_prints(town, node, expected).await {
            Ok(line) => happened.push(line),
            Err(lines) => {
                happened.extend(lines);
                return Err(happened);
            }
        }
    }
    Ok(happened)
}

/// The other node hears of it within moments.
async fn soon_prints(town: &Town, at: At, expected: &str) -> Result<String, Vec<String>> {
    let deadline = Instant::now() + HEARD_WITHIN;
    loop {
        let printed = prints(town, at, "5d4f", expected).await;
        if printed.is_ok() || Instant::now() > deadline {
            return printed;
        }
    }
}

async fn prints(town: &Town, at: At, hash: &str, expected: &str) -> Result<String, Vec<String>> {
    let pod = town.pod(at, "web", hash);
    let name = pod.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let ran = town.runs(at, pod).await.map_err(|status| vec![format!("{}: {name} failed: {}", at.name(), status.message())])?;
    let happened = format!("{}: {name} printed \"{}\".", at.name(), ran.output.trim_end());
    if ran.output.trim_end() == expected { Ok(happened) } else { Err(vec![happened]) }
}
