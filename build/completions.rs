//! The completion scripts of `packages/completions`, compressed.

use std::fs;
use std::path::Path;

use crate::compressed;

/// Shell, file.
const SCRIPTS: [(&str, &str); 3] = [
    ("bash", "lowtide.bash"),
    ("zsh", "_lowtide"),
    ("fish", "lowtide.fish"),
];

/// Writes `completions.rs` with all scripts, by their shells.
pub fn write(directory: &Path) {
    let mut table = String::from("/// Shell, gzip of its script.\n");
    table.push_str("const SCRIPTS: &[(&str, &[u8])] = &[\n");
    for (shell, name) in SCRIPTS {
        let script = fs::read(Path::new("packages/completions").join(name)).expect("a script");
        let file = format!("completions-{shell}.gz");
        fs::write(directory.join(&file), compressed(&script)).expect("write a script");
        table.push_str(&format!("    ({shell:?}, include_bytes!({file:?})),\n"));
    }
    table.push_str("];\n");
    fs::write(directory.join("completions.rs"), table).expect("write the table of scripts");
}
