//! Every signature vector whose provider is registered comes out as expected. The vectors lie beside the
//! repository; where they do not, that is said and nothing is checked.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use hookmill::{
    cli::verify::vectors::{Vector, Verdict},
    providers::registry,
};

#[test]
#[expect(clippy::print_stdout, reason = "what was not checked must be seen")]
fn vectors_come_out_as_expected() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is"));
    let file = root.join("../shared/vectors.json");
    let Ok(bytes) = fs::read(&file) else {
        println!("no vectors are checked: {} is not there", file.display());
        return;
    };
    let vectors: Vec<Vector> = serde_json::from_slice(&bytes).expect("an array of vectors");
    let mut passed = 0;
    let mut skipped = BTreeMap::<&str, usize>::new();
    let mut mismatches = Vec::new();
    for vector in &vectors {
        match vector.check(registry()) {
            Verdict::Passed => passed += 1,
            Verdict::Skipped(_) => *skipped.entry(&vector.provider).or_default() += 1,
            Verdict::Contested(difference) => println!("contested {}: {difference}", vector.id),
            Verdict::Mismatch(difference) => mismatches.push(format!("{}: {difference}", vector.id)),
        }
    }
    println!("{passed} passed; skipped: {skipped:?}");
    assert!(mismatches.is_empty(), "{} mismatches:\n{}", mismatches.len(), mismatches.join("\n"));
    assert_ne!(passed, 0, "not one vector was run");
}
