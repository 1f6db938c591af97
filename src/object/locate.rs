//! Finds the line of a field in a YAML or JSON text, for messages. Pure.
//!
//! Walks the parser's events, so flow style, quotes and comments are no matter. What an alias or a
//! merge key brings in has no line of its own: the nearest ancestor that has one answers for it.

use granit_parser::{Event, Parser, StrInput};

/// Line, from 1, of `path` (`spec.containers[0].image`, `metadata.labels[a/b]`) in the first
/// document of `text`, or of its nearest ancestor there; `None` if nothing of it is there.
pub fn line_of(text: &str, path: &str) -> Option<u32> {
    let mut walk = Walk(Parser::new_from_str(text));
    let mut node = walk.next()?;
    let mut found = None;
    for step in steps(path) {
        let inner = match node.event {
            Event::MappingStart(..) => walk.value_of(step),
            Event::SequenceStart(..) => step.parse().ok().and_then(|n| walk.item(n)),
            _ => None,
        };
        let Some((line, inner)) = inner else { break };
        found = Some(line);
        node = inner;
    }
    found
}

/// Lines, from 1, of the items of the list `name` at the top of `text`, in order.
pub fn lines_of_items(text: &str, name: &str) -> Vec<u32> {
    let mut walk = Walk(Parser::new_from_str(text));
    let top = walk.next().filter(|node| opens(&node.event));
    let mut lines = Vec::new();
    if top.and_then(|_| walk.value_of(name)).is_some() {
        while let Some((line, item)) = walk.item(0) {
            lines.push(line);
            if walk.skip(&item).is_none() {
                break;
            }
        }
    }
    lines
}

/// Names of fields, keys of maps, numbers of items.
fn steps(path: &str) -> Vec<&str> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        steps.push(step);
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    steps
}

struct Node<'t> {
    event: Event<'t>,
    /// From 1.
    line: u32,
}

struct Walk<'t>(Parser<'t, StrInput<'t>>);

impl<'t> Walk<'t> {
    /// The next event that is a node or the end of one; `None` at the end or at an error.
    fn next(&mut self) -> Option<Node<'t>> {
        loop {
            let (event, span) = self.0.next()?.ok()?;
            let ends = matches!(event, Event::MappingEnd | Event::SequenceEnd);
            if event.is_node() || ends {
                let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
                return Some(Node { event, line });
            }
        }
    }

    /// Inside a mapping: the line of the key, and the value.
    fn value_of(&mut self, name: &str) -> Option<(u32, Node<'t>)> {
        loop {
            let key = self.next()?;
            let hit = match &key.event {
                Event::MappingEnd => return None,
                Event::Scalar(text, ..) => text == name,
                _ => false,
            };
            self.skip(&key)?;
            let value = self.next()?;
            if hit {
                return Some((key.line, value));
            }
            self.skip(&value)?;
        }
    }

    /// Inside a sequence: the `index`th item and its line.
    fn item(&mut self, index: usize) -> Option<(u32, Node<'t>)> {
        for _ in 0..index {
            let item = self.next()?;
            if item.event == Event::SequenceEnd {
                return None;
            }
            self.skip(&item)?;
        }
        let item = self.next()?;
        (item.event != Event::SequenceEnd).then_some((item.line, item))
    }

    /// Passes over what is inside a node.
    fn skip(&mut self, node: &Node<'t>) -> Option<()> {
        let mut depth = usize::from(opens(&node.event));
        while depth > 0 {
            match self.next()?.event {
                Event::MappingEnd | Event::SequenceEnd => depth -= 1,
                event => depth += usize::from(opens(&event)),
            }
        }
        Some(())
    }
}

fn opens(event: &Event<'_>) -> bool {
    matches!(event, Event::MappingStart(..) | Event::SequenceStart(..))
}

#[cfg(test)]
mod tests {
    use super::{line_of, lines_of_items};

    #[test]
    fn a_field_is_found_on_its_line() {
        let text = "\
kind: Pod
metadata:
  name: web
  labels: {a: b,
    \"example.com/x.y\": z}
spec:
  # image: none
  volumes:
  - name: data
    emptyDir: {}
  containers:
  - name: a
    image: one
    args:
    - |
      image: none
    ports:
    - containerPort: 1
    - name: x
      containerPort: 2
  -
    image: two
    name: b
";
        for (path, line) in [
            ("kind", 1),
            ("metadata.name", 3),
            ("metadata.labels", 4),
            ("metadata.labels[example.com/x.y]", 5),
            ("spec", 6),
            ("spec.volumes[0].name", 9),
            ("spec.containers", 11),
            ("spec.containers[0]", 12),
            ("spec.containers[0].name", 12),
            ("spec.containers[0].image", 13),
            ("spec.containers[0].args[0]", 16),
            ("spec.containers[0].ports[1].containerPort", 20),
            ("spec.containers[1].image", 22),
            ("spec.containers[1].name", 23),
            // Absent: the line of what it is absent from.
            ("spec.containers[0].command", 12),
            ("spec.containers[1].command", 22),
            ("spec.containers[7].command", 11),
            ("spec.nodeName", 6),
        ] {
            assert_eq!(line_of(text, path), Some(line), "{path}");
        }
        assert_eq!(line_of(text, "nothing"), None);
    }

    #[test]
    fn json_and_aliases_have_lines_too() {
        let json = concat!(
            "{\n\t\"kind\": \"Pod\",\n\t\"spec\": {\"containers\": [\n\t\t{\"name\": \"a\"},\n",
            "\t\t{\n\t\t\t\"name\": \"b\",\n\t\t\t\"path\": \"\\/a\\u00e9\",\n",
            "\t\t\t\"image\": 5\n\t\t}\n\t]}\n}\n"
        );
        assert_eq!(line_of(json, "spec.containers[0].name"), Some(4));
        assert_eq!(line_of(json, "spec.containers[1].image"), Some(8));
        assert_eq!(line_of(json, "spec.containers[1].command"), Some(5));
        let alias =
            "base: &b\n  image: one\nspec:\n  first: *b\n  second:\n    <<: *b\n    name: x\n";
        assert_eq!(line_of(alias, "spec.first.image"), Some(4));
        assert_eq!(line_of(alias, "spec.second.image"), Some(5));
        assert_eq!(line_of(alias, "spec.second.name"), Some(7));
    }

    #[test]
    fn items_of_a_list_have_their_lines() {
        let text = "kind: List\nitems:\n- a: {b: [1, 2]}\n-\n  a: 2\n# x\n- a: 3\n";
        assert_eq!(lines_of_items(text, "items"), [3, 5, 7]);
        assert!(lines_of_items("kind: List\n", "items").is_empty());
    }

    #[test]
    fn a_text_that_is_no_yaml_has_what_comes_before_the_error() {
        assert_eq!(line_of("a: 1\nb: [\n", "b[0]"), Some(2));
        assert_eq!(line_of("", "a"), None);
        assert_eq!(line_of("a: 1\n", ""), None);
    }
}
