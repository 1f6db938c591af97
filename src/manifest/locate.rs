//! Finds the line of a field in a YAML text by its indentation, for messages. Pure.
//!
//! Knows block style, which people write. Where it is lost (flow style, anchors) it answers with
//! the line of the nearest ancestor that it found; nothing depends on it but a line number.

/// Line, from 1, of `path` (`spec.containers[0].image`) in `text`; 1 if nothing was found.
pub fn line_of(text: &str, path: &str) -> u32 {
    let lines: Vec<&str> = text.lines().collect();
    let (mut first, mut indent_min, mut found) = (0, 0, 0);
    for step in steps(path) {
        let hit = match step {
            Step::Field(name) => field(&lines, first, indent_min, name),
            Step::Item(index) => item(&lines, first, indent_min, index),
        };
        let Some((line, inner)) = hit else { break };
        found = line;
        (first, indent_min) = match step {
            Step::Field(_) => (line + 1, inner),
            // An item's first field is on the line of its dash.
            Step::Item(_) => (line, inner),
        };
    }
    u32::try_from(found + 1).unwrap_or(u32::MAX)
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !name.is_empty() {
            steps.push(Step::Field(name));
        }
        while let Some((index, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            match index.parse() {
                Ok(index) => steps.push(Step::Item(index)),
                Err(_) => steps.push(Step::Field(index)),
            }
            rest = after;
        }
    }
    steps
}

/// Columns before the content, where dashes of list items count as indentation.
fn column(line: &str) -> Option<usize> {
    let content = line.trim_start();
    if content.is_empty() || content.starts_with('#') {
        return None;
    }
    let spaces = line.len() - content.len();
    let past_dash = content.strip_prefix("- ").map(str::trim_start);
    Some(past_dash.map_or(spaces, |inner| line.len() - inner.len()))
}

/// The line of `name:` among the fields of the block that starts at `first`, and the least column
/// of what it contains.
fn field(lines: &[&str], first: usize, least: usize, name: &str) -> Option<(usize, usize)> {
    let mut block = None;
    for (number, line) in lines.iter().enumerate().skip(first) {
        let Some(at) = column(line) else { continue };
        let block = *block.get_or_insert(at);
        let next_item = number > first && line.trim_start().starts_with("- ") && at <= block;
        if at < least || at < block || next_item {
            return None;
        }
        let content = line[at..].trim_start_matches(['"', '\'']);
        let named = content.strip_prefix(name).is_some_and(|rest| {
            rest.trim_start_matches(['"', '\''])
                .trim_start()
                .starts_with(':')
        });
        if at == block && named {
            return Some((number, at));
        }
    }
    None
}

/// The line of the `index`th dash of the list that starts at `first`, and its content's column.
fn item(lines: &[&str], first: usize, least: usize, index: usize) -> Option<(usize, usize)> {
    let (mut dashes, mut seen) = (None, 0);
    for (number, line) in lines.iter().enumerate().skip(first) {
        let Some(at) = column(line) else { continue };
        let spaces = line.len() - line.trim_start().len();
        let block = *dashes.get_or_insert(spaces);
        if spaces < least || spaces < block {
            return None;
        }
        if spaces == block {
            // At the dashes' own column, something else ends the list.
            line.trim_start().strip_prefix('-')?;
            if seen == index {
                return Some((number, at));
            }
            seen += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn a_field_is_found_on_its_line() {
        let text = "\
kind: Pod
metadata:
  name: web
spec:
  # image: none
  volumes:
  - name: data
    emptyDir: {}
  containers:
  - name: a
    image: one
    ports:
    - containerPort: 1
    - name: x
      containerPort: 2
  - image: two
    name: b
";
        for (path, line) in [
            ("kind", 1),
            ("metadata.name", 3),
            ("spec", 4),
            ("spec.volumes[0].name", 7),
            ("spec.containers", 9),
            ("spec.containers[0].name", 10),
            ("spec.containers[0].image", 11),
            ("spec.containers[0].ports[1].containerPort", 15),
            ("spec.containers[1].image", 16),
            ("spec.containers[1].name", 17),
            ("spec.containers[1].command", 16),
            ("spec.nodeName", 4),
            ("nothing", 1),
        ] {
            assert_eq!(line_of(text, path), line, "{path}");
        }
    }
}
