//! Rules for some images and namespaces: stricter, more lenient, by digest, and not at all.

use super::super::harness::image::Recipe;
use super::*;

#[tokio::test]
async fn an_image_that_runs_in_one_namespace_is_refused_in_those_that_demand_more() {
    let mut scene = Scene::new("namespaces_that_demand_more").await;
    let people = People::of(&scene);
    let demands = "namespaces = [\"prod\"]\nsigned-by = [\"acme/qa\"]";
    let config = people.known_to(&scene.config).rule(&gun(&scene), demands);
    let config = config.rule(&gun(&scene), "name = \"frozen\"\nnamespaces = [\"frozen\"]\ndeny = true");
    reconfigure(&mut scene, &config).await;
    runs(&scene, "dev").await;
    let (id, name) = (scene.image.id().to_string(), scene.name.clone());
    let by_digest = format!("{}@{}", gun(&scene), scene.image.digest());

    let unsigned = "image did not meet required signing policy: ";
    for (namespace, detail, code) in
        [("prod", format!(": {unsigned}"), "CS-SIGNING-POLICY"), ("frozen", " is denied by rule `frozen`".into(), "CS-DENIED-BY-RULE")]
    {
        let sentence = format!("{name}{detail}");
        let refused = scene.cri().run(&name, namespace).await.unwrap_err();
        assert_refused(&refused, DENIED, &sentence, code);
        // The pull was in another namespace; here kubelet finds the image present.
        let pod = pod(&scene, namespace).await;
        assert_refused(&create(&scene, &pod).await.unwrap_err(), DENIED, &sentence, code);
        for (image, specified) in [(&name, &name), (&id, &by_digest), (&by_digest, &String::new()), (&id, &String::new()), (&id, &id)] {
            let refused = scene.cri().create(&pod, container(image, specified)).await.unwrap_err();
            assert_refused(&refused, DENIED, "", code);
        }
        let (exit, out, _) = countersign(&["verify", &name, "--namespace", namespace, "--config", &configuration(&scene)]).await;
        assert_eq!((exit, out.contains(code)), (Some(1), true), "{out}");
    }
    for namespace in ["dev", ""] {
        let (exit, out, _) = countersign(&["verify", &name, "--namespace", namespace, "--config", &configuration(&scene)]).await;
        assert_eq!(exit, Some(0), "{out}");
    }
    only_stand_on(&scene.world, &[&scene.image], 1).await;
}

#[tokio::test]
async fn a_lenient_rule_lets_its_own_image_run_and_nothing_else() {
    let mut scene = Scene::new("a_lenient_rule").await;
    let [legacy, other, off] = ["legacy", "other", "off"].map(|line| Recipe::prints(line).build());
    let legacy_name = scene.world.push(&legacy, "legacy/app", "1").await;
    let other_name = scene.world.push(&other, "other/app", "1").await;
    let off_name = scene.world.push(&off, "off/app", "1").await;
    let lenient = "name = \"legacy\"\nmode = \"permissive\"";
    let config = scene.config.clone().rule(&scene.world.gun("legacy/app"), lenient);
    let config = config.rule(&scene.world.gun("off/*"), "namespaces = [\"dev\"]\nmode = \"disabled\"");
    reconfigure(&mut scene, &config).await;

    let ran = scene.cri().run(&legacy_name, "default").await.unwrap();
    assert_eq!(ran.output, "legacy\n");
    for (call, code) in [("PullImage", "CS-NOT-PINNED"), ("CreateContainer", "CS-NOT-PINNED"), ("StartContainer", "CS-UNKNOWN-ROOTFS")] {
        let log = gate(&scene).log();
        let told = log.lines().find(|line| line.contains("let pass: mode is permissive") && line.contains(&format!("call={call}")));
        assert!(told.is_some_and(|line| line.contains(code)), "{call}: {log}");
    }
    let ran = scene.cri().run(&off_name, "dev").await.unwrap();
    assert_eq!(ran.output, "off\n");
    assert!(!gate(&scene).log().contains("off/app"), "nothing is said of what is switched off");

    // Without a namespace nobody knows whether the rule is meant.
    let sentence = |repository: &str| format!("no pin covers {}", scene.world.gun(repository));
    assert_refused(&scene.cri().pull(&legacy_name).await.unwrap_err(), DENIED, &sentence("legacy/app"), "CS-NOT-PINNED");
    assert_refused(&scene.cri().run(&off_name, "prod").await.unwrap_err(), DENIED, &sentence("off/app"), "CS-NOT-PINNED");
    assert_refused(&scene.cri().run(&other_name, "dev").await.unwrap_err(), DENIED, &sentence("other/app"), "CS-NOT-PINNED");
    scene.world.cri().pull(&other_name).await.unwrap();
    let pod = pod(&scene, "dev").await;
    let other_id = other.id().to_string();
    let refused = scene.cri().create(&pod, container(&other_id, &other_name)).await.unwrap_err();
    assert_refused(&refused, DENIED, &sentence("other/app"), "CS-NOT-PINNED");
    let refused = scene.cri().create(&pod, container(&other_id, "")).await.unwrap_err();
    assert_refused(&refused, DENIED, "", "CS-NOT-HELD");
    runs(&scene, "default").await;
    only_stand_on(&scene.world, &[&legacy, &off, &scene.image], 3).await;
}

#[tokio::test]
async fn an_image_that_a_rule_lists_by_digest_runs_without_a_signature_and_without_its_server() {
    let mut scene = Scene::new("a_rule_lists_by_digest").await;
    let [tools, evil] = ["tools", "evil"].map(|line| Recipe::prints(line).index().build());
    let (name, digest) = (scene.world.push(&tools, "third/tools", "1").await, tools.digest());
    let gun = scene.world.gun("third/tools");
    let by_digest = format!("{gun}@{digest}");
    let config = scene.config.clone().rule(&scene.world.gun("third/*"), &format!("name = \"tools\"\nallow-digests = [\"{digest}\"]"));
    reconfigure(&mut scene, &config).await;
    let listed = "\"listed-by-rule\":true";

    let ran = scene.cri().run(&by_digest, "default").await.unwrap();
    assert_eq!((ran.output.as_str(), ran.image), ("tools\n", tools.id().to_string()));
    let (exit, out, _) =
        countersign(&["verify", &by_digest, "--namespace", "default", "--output", "json", "--config", &configuration(&scene)]).await;
    assert_eq!((exit, out.contains(listed)), (Some(0), true), "{out}");

    // A tag says nothing without a signature, but what is on the node is looked at.
    let unpinned = format!("no pin covers {gun}");
    assert_refused(&scene.cri().run(&name, "default").await.unwrap_err(), DENIED, &unpinned, "CS-NOT-PINNED");
    let (ctr, pod) = (scene.world.containerd.ctr(), pod(&scene, "default").await);
    let imported = scene.world.gun("third/tools:imported");
    ctr.import(&tools, &imported).await;
    let ran = scene.cri().run_image(&pod, &tools.id().to_string(), &imported).await.unwrap();
    assert_eq!(ran.output, "tools\n");
    ctr.import(&evil, &scene.world.gun("third/tools:evil")).await;
    for specified in [scene.world.gun("third/tools:evil"), imported] {
        let refused = scene.cri().create(&pod, container(&evil.id().to_string(), &specified)).await.unwrap_err();
        assert_refused(&refused, DENIED, &unpinned, "CS-NOT-PINNED");
    }
    // Nor is it for sale elsewhere, or without a namespace.
    let elsewhere = format!("{}@{digest}", scene.world.gun("fourth/tools"));
    assert_refused(&scene.cri().run(&elsewhere, "default").await.unwrap_err(), DENIED, "no pin covers ", "CS-NOT-PINNED");
    assert_refused(&scene.cri().pull(&by_digest).await.unwrap_err(), DENIED, &unpinned, "CS-NOT-PINNED");

    assert_eq!(scene.front.count("third/tools"), 0, "its server was never asked: {:?}", scene.front.seen());
    only_stand_on(&scene.world, &[&tools], 2).await;
}

#[tokio::test]
async fn a_digest_that_a_rule_lists_runs_in_a_repository_whose_signatures_say_otherwise() {
    let mut scene = Scene::new("a_listed_digest_in_a_signed_repository").await;
    let older = Recipe::prints("older").build();
    scene.world.push(&older, REPOSITORY, "0").await;
    let by_digest = format!("{}@{}", gun(&scene), older.digest());
    let unsigned = format!("no trust signature found for {by_digest}");
    assert_refused(&scene.cri().run(&by_digest, "default").await.unwrap_err(), DENIED, &unsigned, "CS-DIGEST-NOT-SIGNED");

    let config = scene.config.clone().rule(&gun(&scene), &format!("namespaces = [\"dev\"]\nallow-digests = [\"{}\"]", older.digest()));
    reconfigure(&mut scene, &config).await;
    assert_eq!(scene.cri().run(&by_digest, "dev").await.unwrap().output, "older\n");
    assert_refused(&scene.cri().run(&by_digest, "prod").await.unwrap_err(), DENIED, &unsigned, "CS-DIGEST-NOT-SIGNED");
    let pod = pod(&scene, "prod").await;
    let refused = scene.cri().create(&pod, container(&older.id().to_string(), &by_digest)).await.unwrap_err();
    assert_refused(&refused, DENIED, &unsigned, "CS-DIGEST-NOT-SIGNED");
    runs(&scene, "dev").await;
    only_stand_on(&scene.world, &[&scene.image, &older], 2).await;
}
