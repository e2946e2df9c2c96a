//! Writes the seeds of each target into `corpus/TARGET`: `cargo run --example seeds --no-default-features`.

use std::path::Path;

use fs_err as fs;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for stoa_fuzz::Target { name, seeds, .. } in stoa_fuzz::TARGETS {
        let dir = corpus.join(name);
        fs::create_dir_all(&dir)?;
        let seeds = seeds();
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{number}")), seed)?;
        }
        println!("{name}: {} seeds", seeds.len());
    }
    Ok(())
}
