//! `--token-auth-file`: `token,user,uid,"group,group"` in each row.
//!
//! Source: Kubernetes apiserver, authentication/token/tokenfile.

use std::path::Path;
use std::sync::Arc;

use ring::digest::{Digest, SHA256, digest};

use super::csv;
use super::secret_file::{self, Loaded};
use crate::object::User;

/// Tokens by their hash: how long a look-up takes says nothing of how much of a token was right.
#[derive(Debug, Default)]
pub struct TokenFile(Vec<(Digest, Arc<User>)>);

impl TokenFile {
    /// Reads the file. Errors: file, line, what is wrong.
    pub fn load(path: &Path) -> Result<Loaded<TokenFile>, String> {
        TokenFile::parse(path, &secret_file::read(path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Loaded<TokenFile>, String> {
        let mut warnings = Vec::new();
        let mut file = TokenFile::default();
        let rows = csv::rows(text).map_err(|(line, why)| csv::at(path, line, why))?;
        for row in rows {
            let entry = secret_file::entry(path, &row, "token")?;
            if entry.secret.is_empty() {
                warnings.push(csv::at(path, row.line, "empty token, row skipped"));
                continue;
            }
            let hash = digest(&SHA256, entry.secret.as_bytes());
            let user = Arc::new(entry.user);
            match file.0.iter_mut().find(|(known, _)| same(known, &hash)) {
                Some((_, known)) => {
                    let text = "duplicate token, the last row counts";
                    warnings.push(csv::at(path, row.line, text));
                    *known = user;
                }
                None => file.0.push((hash, user)),
            }
        }
        Ok(Loaded {
            content: file,
            warnings,
        })
    }

    /// Every row is looked at, whichever matches.
    pub fn user(&self, token: &str) -> Option<Arc<User>> {
        let hash = digest(&SHA256, token.as_bytes());
        let mut found = None;
        for (known, user) in &self.0 {
            if same(known, &hash) {
                found = Some(user);
            }
        }
        found.cloned()
    }
}

fn same(a: &Digest, b: &Digest) -> bool {
    let pairs = a.as_ref().iter().zip(b.as_ref());
    pairs.fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Loaded<TokenFile>, String> {
        TokenFile::parse(Path::new("/t.csv"), text)
    }

    #[test]
    fn tokens_are_who_their_rows_say() {
        let text = "t1,jane,7\r\n\nt2,joe,8,\"dev,ops\"\nt3,kim,,solo,more\n";
        let file = parse(text).expect("good");
        assert!(file.warnings.is_empty());
        type Expected = Option<(&'static str, &'static str, &'static [&'static str])>;
        let table: [(&str, Expected); 7] = [
            ("t1", Some(("jane", "7", &[]))),
            ("t2", Some(("joe", "8", &["dev", "ops"]))),
            ("t3", Some(("kim", "", &["solo"]))),
            ("t", None),
            ("t11", None),
            ("", None),
            ("T1", None),
        ];
        for (token, expected) in table {
            let user = file.content.user(token);
            let user = user.as_deref().map(|user| {
                let groups: Vec<&str> = user.groups.iter().map(String::as_str).collect();
                (user.name.as_str(), user.uid.as_str(), groups)
            });
            let expected = expected.map(|(name, uid, groups)| (name, uid, groups.to_vec()));
            assert_eq!(user, expected, "{token}");
        }
    }

    #[test]
    fn of_equal_tokens_the_last_counts_and_empty_ones_never() {
        let file = parse("t,a,1\nt,b,2\n,c,3\n").expect("good");
        assert_eq!(file.warnings.len(), 2, "{:?}", file.warnings);
        assert!(file.warnings[0].starts_with("/t.csv:2: duplicate token"));
        assert!(file.warnings[1].starts_with("/t.csv:3: empty token"));
        assert_eq!(file.content.user("t").expect("known").name, "b");
        assert_eq!(file.content.user(""), None);
    }

    #[test]
    fn bad_rows_name_file_line_and_what_is_missing() {
        let table = [
            (
                "t,a\n",
                "/t.csv:1: 2 columns, needs at least 3 (token,user,uid)",
            ),
            ("t,a,1\n\nu,,2\n", "/t.csv:3: empty user name"),
            (
                "t,a,1\n\"u,b,2\n",
                "/t.csv:2: extraneous or missing \" in quoted-field",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).err().as_deref(), Some(expected), "{text:?}");
        }
    }
}
