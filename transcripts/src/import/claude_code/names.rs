//! Turns the many ids of a session file (uuids, message ids, agent ids) into small numbers, so that the tree walk
//! compares integers and every id is held once. Knows nothing of what an id means.

use std::collections::HashMap;
use std::rc::Rc;

/// A name, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::import) struct Name(u32);

/// All names of one import, each once.
#[derive(Debug, Default)]
pub(in crate::import) struct Names {
    by_text: HashMap<Rc<str>, Name>,
    texts: Vec<Rc<str>>,
}

impl Names {
    /// The number of a name; new names get the next one.
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(&name) = self.by_text.get(text) {
            return name;
        }
        // A file of 2^32 distinct ids would be larger than any machine's memory: saturating merges names only there.
        let name = Name(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text: Rc<str> = Rc::from(text);
        self.texts.push(Rc::clone(&text));
        self.by_text.insert(text, name);
        name
    }

    /// The text of a name.
    pub fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("", |text| text)
    }
}
