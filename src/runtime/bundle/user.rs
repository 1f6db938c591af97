//! Who a container's process runs as: the pod's wish, else the image's `USER`, looked up in the
//! image's own /etc/passwd and /etc/group.
//!
//! Numbers are parsed strictly: a user of 4294967296 must not wrap around to root
//! (GO-2025-3528).

use super::BundleError;
use crate::world::Security;

/// Ids as they go into the OCI process object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// Sorted, without duplicates. `gid` is among them, as in other runtimes: without it a process
    /// escapes permissions that are withheld from its own group (CVE-2022-36109).
    pub additional_gids: Vec<u32>,
    /// From the image's passwd; `None` if it has no entry for the user.
    pub home: Option<String>,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Finds uid, gid and supplementary groups.
///
/// `image_user` is the image's `USER`: empty, `name`, `uid`, `name:group`, `uid:gid` in any mix.
/// `passwd` and `group` are the texts of the image's files, empty if it has none.
/// Errors: `Config` for numbers of the pod beyond 32 bits, `Image` for a user or group of the
/// image that is neither a number nor in its files.
pub fn resolve_user(
    security: &Security,
    image_user: &str,
    passwd: &str,
    group: &str,
) -> Result<ResolvedUser, BundleError> {
    let (image_name, image_group) = match image_user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (image_user, None),
    };
    let (uid, entry) = match security.run_as_user {
        Some(wanted) => {
            let uid = id_of_pod("runAsUser", wanted)?;
            (uid, passwd_entries(passwd).find(|e| e.uid == uid))
        }
        None => user_of_image(image_name, passwd)?,
    };
    // The image's group belongs to the image's user; another user does not inherit it.
    let gid = match (security.run_as_group, security.run_as_user, image_group) {
        (Some(wanted), _, _) => id_of_pod("runAsGroup", wanted)?,
        (None, None, Some(named)) => group_of_image(named, group)?,
        (None, _, _) => entry.as_ref().map_or(0, |e| e.gid),
    };
    let mut additional_gids = vec![gid];
    for wanted in security
        .supplemental_groups
        .iter()
        .chain(&security.fs_group)
    {
        additional_gids.push(id_of_pod("supplementalGroups", *wanted)?);
    }
    if let (Some(entry), false) = (&entry, security.strict_groups) {
        additional_gids.extend(groups_with_member(group, entry.name));
    }
    additional_gids.sort_unstable();
    additional_gids.dedup();
    Ok(ResolvedUser {
        uid,
        gid,
        additional_gids,
        home: entry
            .map(|e| e.home.to_owned())
            .filter(|h| h.starts_with('/')),
    })
}

fn id_of_pod(field: &str, id: i64) -> Result<u32, BundleError> {
    // The highest value means "unchanged" to chown(2) and setresuid(2).
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| {
            BundleError::Config(format!(
                "securityContext.{field}: {id} is no user or group id"
            ))
        })
}

fn user_of_image<'a>(
    name: &str,
    passwd: &'a str,
) -> Result<(u32, Option<Passwd<'a>>), BundleError> {
    if name.is_empty() {
        return Ok((0, passwd_entries(passwd).find(|e| e.uid == 0)));
    }
    // Digits are a number, as runAsNonRoot took them, whatever the image calls its users.
    if !is_number(name)
        && let Some(entry) = passwd_entries(passwd).find(|e| e.name == name)
    {
        return Ok((entry.uid, Some(entry)));
    }
    let uid = id_of_image("user", name)?;
    Ok((uid, passwd_entries(passwd).find(|e| e.uid == uid)))
}

fn group_of_image(name: &str, group: &str) -> Result<u32, BundleError> {
    match group_entries(group).find(|(known, _, _)| *known == name && !is_number(name)) {
        Some((_, gid, _)) => Ok(gid),
        None => id_of_image("group", name),
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn id_of_image(what: &str, text: &str) -> Result<u32, BundleError> {
    if !is_number(text) {
        return Err(BundleError::Image(format!(
            "unable to find {what} {text}: no matching entries in the image's {what} file"
        )));
    }
    id(text).ok_or_else(|| BundleError::Image(format!("image user: {what} {text} is out of range")))
}

/// `None` for no number, and for the highest value, which means "unchanged" to setresuid(2).
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// `name:password:uid:gid:gecos:home:shell`; other lines are skipped.
fn passwd_entries(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Passwd {
            name,
            uid,
            gid,
            home,
        })
    })
}

/// `name:password:gid:member,member`; other lines are skipped.
fn group_entries(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn groups_with_member<'a>(text: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group_entries(text)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::bundle::tests::plain_security;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\napp:x:1000:1001::/home/app:\n\
                          bad:x:abc:1::/:\nbig:x:4294967296:0::/:\n77:x:0:0::/:\n";
    const GROUP: &str =
        "root:x:0:\naudio:x:29:app,other\nvideo:x:44:app\napps:x:1001:app\n78:x:0:\n";

    fn run(image: &str, change: impl Fn(&mut Security)) -> Result<ResolvedUser, BundleError> {
        let mut security = plain_security();
        change(&mut security);
        resolve_user(&security, image, PASSWD, GROUP)
    }

    #[test]
    fn users_resolve_from_pod_then_image() {
        type Change = fn(&mut Security);
        let cases: [(&str, Change, u32, u32, &[u32]); 13] = [
            ("", |_| (), 0, 0, &[0]),
            ("app", |_| (), 1000, 1001, &[29, 44, 1001]),
            ("1000", |_| (), 1000, 1001, &[29, 44, 1001]),
            ("app:audio", |_| (), 1000, 29, &[29, 44, 1001]),
            ("app:7", |_| (), 1000, 7, &[7, 29, 44, 1001]),
            ("4242", |_| (), 4242, 0, &[0]),
            // Digits are never a name of the image's own making.
            ("77", |_| (), 77, 0, &[0]),
            ("77:78", |_| (), 77, 78, &[78]),
            ("app:audio", |s| s.run_as_user = Some(5), 5, 0, &[0]),
            (
                "",
                |s| s.run_as_user = Some(1000),
                1000,
                1001,
                &[29, 44, 1001],
            ),
            (
                "app",
                |s| s.run_as_group = Some(9),
                1000,
                9,
                &[9, 29, 44, 1001],
            ),
            ("app", |s| s.strict_groups = true, 1000, 1001, &[1001]),
            (
                "4242",
                |s| (s.supplemental_groups, s.fs_group) = (vec![9, 3, 9], Some(2000)),
                4242,
                0,
                &[0, 3, 9, 2000],
            ),
        ];
        for (image, change, uid, gid, groups) in cases {
            let user = run(image, change).unwrap_or_else(|e| panic!("{image}: {e}"));
            assert_eq!((user.uid, user.gid), (uid, gid), "{image}");
            assert_eq!(user.additional_gids, groups, "{image}");
        }
    }

    #[test]
    fn numbers_that_would_wrap_to_root_are_refused() {
        for image in [
            "4294967296",
            "4294967295",
            "big",
            "-1",
            "0:4294967296",
            "18446744073709551616",
        ] {
            assert!(
                matches!(run(image, |_| ()), Err(BundleError::Image(_))),
                "{image}"
            );
        }
        for id in [-1, 4_294_967_295, 4_294_967_296] {
            assert!(run("", |s| s.run_as_user = Some(id)).is_err(), "{id}");
            assert!(run("", |s| s.run_as_group = Some(id)).is_err(), "{id}");
            assert!(
                run("", |s| s.supplemental_groups = vec![id]).is_err(),
                "{id}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_the_images_fault() {
        let error = run("nobody-here", |_| ()).expect_err("not in passwd");
        assert!(
            error
                .to_string()
                .contains("unable to find user nobody-here"),
            "{error}"
        );
        assert!(run("app:nogroup", |_| ()).is_err());
    }
}
