//! `--basic-auth-file`: `password,user,uid,"group,group"` in each row.
//!
//! Source: Kubernetes apiserver 1.18, authenticator/password/passwordfile (its last).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::csv;
use super::secret_file::{self, Loaded};
use crate::object::User;

/// Users by name, each with the hash of the password.
#[derive(Debug, Default)]
pub struct BasicFile(BTreeMap<String, (Vec<u8>, Arc<User>)>);

impl BasicFile {
    /// Reads the file. Errors: file, line, what is wrong.
    pub fn load(path: &Path) -> Result<Loaded<BasicFile>, String> {
        BasicFile::parse(path, &secret_file::read(path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Loaded<BasicFile>, String> {
        let mut warnings = Vec::new();
        let mut file = BasicFile::default();
        let rows = csv::rows(text).map_err(|(line, why)| csv::at(path, line, why))?;
        for row in rows {
            let entry = secret_file::entry(path, &row, "password")?;
            if entry.secret.is_empty() {
                // Upstream let everybody in who knew the name.
                return Err(csv::at(path, row.line, "empty password"));
            }
            let name = entry.user.name.clone();
            let known = (hash(&entry.secret), Arc::new(entry.user));
            if file.0.insert(name.clone(), known).is_some() {
                let text = format!("duplicate user {name:?}, the last row counts");
                warnings.push(csv::at(path, row.line, &text));
            }
        }
        Ok(Loaded {
            content: file,
            warnings,
        })
    }

    /// A user who does not exist takes as long as a wrong password.
    pub fn user(&self, name: &str, password: &str) -> Option<Arc<User>> {
        let given = hash(password);
        let known = self.0.get(name);
        let expected = known.map_or([0u8; 32].as_slice(), |(hash, _)| hash);
        let pairs = expected.iter().zip(&given);
        let same = pairs.fold(0, |sum, (x, y)| sum | (x ^ y)) == 0;
        known.filter(|_| same).map(|(_, user)| user.clone())
    }
}

fn hash(password: &str) -> Vec<u8> {
    digest(&SHA256, password.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Loaded<BasicFile>, String> {
        BasicFile::parse(Path::new("/b.csv"), text)
    }

    #[test]
    fn name_and_password_must_both_be_right() {
        let file = parse("pw,jane,7,\"dev,ops\"\npw2,joe,8\n")
            .expect("good")
            .content;
        let table = [
            ("jane", "pw", true),
            ("joe", "pw2", true),
            ("jane", "pw2", false),
            ("jane", "", false),
            ("jan", "pw", false),
            ("", "", false),
        ];
        for (name, password, good) in table {
            assert_eq!(
                file.user(name, password).is_some(),
                good,
                "{name}:{password}"
            );
        }
        assert_eq!(
            file.user("jane", "pw").expect("known").groups,
            ["dev", "ops"]
        );
    }

    #[test]
    fn of_one_users_rows_the_last_counts_and_no_password_may_be_empty() {
        let file = parse("a,jane,1\nb,jane,2\n").expect("good");
        assert!(file.warnings[0].starts_with("/b.csv:2: duplicate user \"jane\""));
        assert!(file.content.user("jane", "a").is_none());
        assert_eq!(file.content.user("jane", "b").expect("known").uid, "2");
        assert_eq!(
            parse("a,b,c\n,jane,1").err().as_deref(),
            Some("/b.csv:2: empty password")
        );
        assert_eq!(
            parse("a,b").err().as_deref(),
            Some("/b.csv:1: 2 columns, needs at least 3 (password,user,uid)")
        );
    }
}
