//! Without a network: what is stored is served, and nothing leaves the machine.

use crate::fixtures::World;

#[tokio::test]
async fn what_was_fetched_is_served_and_the_rest_is_not() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let name = world.sumdb.name().to_owned();
    let files = [
        "ex.com/lib/@v/v1.0.0.info",
        "ex.com/lib/@v/v1.0.0.mod",
        "ex.com/lib/@v/v1.0.0.zip",
        "ex.com/lib/@v/main.info",
        "ex.com/lib/@v/v1.1.1-0.20240102030405-0123456789ab.mod",
        "ex.com/lib/@v/v1.1.1-0.20240102030405-0123456789ab.zip",
        "ex.com/old/@v/v2.0.0+incompatible.mod",
        "ex.com/old/@v/v2.0.0+incompatible.zip",
    ];
    let mut bodies = Vec::new();
    for file in files {
        bodies.push(stoa.get(file).await.ok());
    }
    let lookup = format!("sumdb/{name}/lookup/ex.com/lib@v1.0.0");
    let record = stoa.get(&lookup).await.ok();
    world
        .upstream
        .wait_for_request("/ex.com/lib/@v/v1.1.1-0.20240102030405-0123456789ab.info")
        .await;
    // The upstream knows of more versions; offline they must not be offered.
    assert_eq!(stoa.get("ex.com/lib/@v/list").await.text(), "v1.0.0\nv1.1.0\nv1.2.0-rc.1\n");
    stoa.stop();

    world.upstream.forget_requests();
    let offline = setup.offline().start();
    for (file, body) in files.iter().zip(&bodies) {
        assert!(offline.get(file).await.ok() == *body, "{file}");
    }
    assert_eq!(offline.get("ex.com/lib/@v/list").await.text(), "v1.0.0\n");
    assert!(offline.get("ex.com/lib/@latest").await.text().contains("\"v1.0.0\""));
    // A version that came without its .info has one made of it; so has a query that can only mean it.
    let made = offline.get("ex.com/old/@v/v2.0.0.info").await;
    assert!(made.text().contains("v2.0.0+incompatible"), "{}", made.text());
    assert_eq!(offline.get("ex.com/old/@v/list").await.text(), "v2.0.0+incompatible\n");
    let by_hash = offline.get("ex.com/lib/@v/0123456.info").await;
    assert!(by_hash.text().contains("v1.1.1-0.20240102030405-0123456789ab"), "{}", by_hash.text());
    assert_eq!(offline.get(&lookup).await.ok(), record);
    offline.get(&format!("sumdb/{name}/supported")).await.ok();
    offline.get(&format!("sumdb/{name}/latest")).await.ok();
    for missing in [
        "ex.com/lib/@v/v1.1.0.info",
        "ex.com/lib/@v/v1.1.0.zip",
        "ex.com/lib/@v/nobranch.info",
        "ex.com/none/@v/list",
        "ex.com/none/@latest",
        &format!("sumdb/{name}/lookup/ex.com/lib@v1.1.0"),
    ] {
        offline.get(missing).await.refused(404, "offline, not stored");
    }
    assert_eq!(offline.get("readyz").await.status, 200);
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
}

#[tokio::test]
async fn an_info_is_made_where_only_the_mod_is_stored() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let base = "ex.com/lib/@v/v1.1.1-0.20240102030405-0123456789ab";
    stoa.get(&format!("{base}.mod")).await.ok();
    stoa.stop();
    let offline = setup.offline().start();
    let info = offline.get(&format!("{base}.info")).await;
    assert_eq!(
        info.text().trim_end(),
        r#"{"Version":"v1.1.1-0.20240102030405-0123456789ab","Time":"2024-01-02T03:04:05Z"}"#
    );
    assert!(offline.get("ex.com/lib/@latest").await.text().contains("0123456789ab"));
    offline.get(&format!("{base}.zip")).await.refused(404, "offline, not stored");
}
