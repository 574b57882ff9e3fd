//! Tells the agent for which kind of machine it is built, as releases name it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").expect("cargo says what it builds for");
    println!("cargo::rustc-env=MUSTER_TARGET={target}");
}
