//! A list that grows by chunks, so that nobody ever waits for all of it to be copied.
//!
//! In: entries, at the end. Out: the entry in a place.
//! Always: an entry beyond the first chunk never moves in memory, and one within it while the list is short; what a
//! list says that it holds is what it holds, room to grow included.

use crate::model::heap_bytes;

/// Entries in a chunk.
const CHUNK: usize = 1024;
/// Entries that a list has room for at first; one of no more is never made smaller.
pub(super) const FEW: usize = 4;

/// The list.
#[derive(Debug)]
pub struct List<T> {
    /// All but the last are full. The first grows until it is; each other has room for all from the beginning.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> List<T> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The entry in `place`; `None` past the end.
    #[inline]
    pub fn get(&self, place: usize) -> Option<&T> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// Entries from `place` on, as many as lie in a row in memory; empty past the end alone.
    #[inline]
    pub fn run(&self, place: usize) -> &[T] {
        self.chunks.get(place / CHUNK).and_then(|chunk| chunk.get(place % CHUNK..)).unwrap_or_default()
    }

    /// All entries, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// The last entry.
    pub fn last(&self) -> Option<&T> {
        self.chunks.last()?.last()
    }

    /// Puts an entry at the end.
    pub fn push(&mut self, entry: T) {
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            if self.chunks.len() == self.chunks.capacity() {
                self.chunks.reserve_exact((self.chunks.len() / 4).max(1));
            }
            self.chunks.push(Vec::with_capacity(if self.chunks.is_empty() { FEW } else { CHUNK }));
        }
        let Some(last) = self.chunks.last_mut() else { unreachable!("one was made") };
        if last.len() == last.capacity() {
            last.reserve_exact(grown(last.len()) - last.len());
        }
        last.push(entry);
    }

    /// Takes out the last entry, and gives back room far beyond what is left.
    pub fn pop(&mut self) -> Option<T> {
        let entry = self.chunks.last_mut()?.pop();
        let is_only = self.chunks.len() == 1;
        if let Some(last) = self.chunks.last_mut() {
            if last.is_empty() {
                self.chunks.pop();
            } else if is_only && last.len().max(FEW) * 4 < last.capacity() {
                last.shrink_to(2 * last.len());
            }
        }
        if self.chunks.len().max(FEW) * 4 < self.chunks.capacity() {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
        entry
    }

    /// What the list holds, bytes.
    pub fn bytes(&self) -> usize {
        let first = self.chunks.first().map_or(0, |first| heap_bytes(first.capacity() * size_of::<T>()));
        let others = self.chunks.len().saturating_sub(1) * heap_bytes(CHUNK * size_of::<T>());
        heap_bytes(self.chunks.capacity() * size_of::<Vec<T>>()) + first + others
    }

    /// Most bytes that one more entry may need; what is replaced stands beside it for as long.
    pub fn room(&self) -> usize {
        let chunks = self.chunks.len();
        let list = heap_bytes((chunks + (chunks / 4).max(1)) * size_of::<Vec<T>>());
        match self.chunks.last() {
            None => list + heap_bytes(FEW * size_of::<T>()),
            Some(last) if last.len() < last.capacity() => 0,
            Some(last) if last.len() == CHUNK => list + heap_bytes(CHUNK * size_of::<T>()),
            Some(last) => heap_bytes(grown(last.len()) * size_of::<T>()),
        }
    }
}

/// The room that a first chunk of so many entries is given: a fourth more at a time, since twice as much wastes too
/// much.
fn grown(length: usize) -> usize {
    (length + (length / 4).max(FEW)).min(CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_their_places_and_what_each_needs_is_foretold() {
        let mut list = List::default();
        assert_eq!((list.len(), list.get(0), list.last(), list.run(0)), (0, None, None, &[][..]));
        for number in 0..5000u64 {
            let room = list.bytes() + list.room();
            list.push(number);
            assert!(list.bytes() <= room, "{} bytes of {room}, with {}", list.bytes(), list.len());
            assert!(list.bytes() >= list.len() * 8);
            assert_eq!((list.len(), list.last(), list.get(list.len())), (number as usize + 1, Some(&number), None));
        }
        assert!(list.iter().copied().eq(0..5000));
        assert!((0..5000).all(|place| list.get(place) == Some(&(place as u64))));
        let mut seen = 0;
        while !list.run(seen).is_empty() {
            assert_eq!(list.run(seen)[0], seen as u64);
            seen += list.run(seen).len();
        }
        assert_eq!(seen, 5000);
        for number in (0..5000).rev() {
            assert_eq!(list.pop(), Some(number));
            assert_eq!(list.len(), number as usize);
            assert!(list.bytes() <= 8 * list.len() * 5 + CHUNK * 8 * 2, "{} bytes", list.bytes());
        }
        assert_eq!((list.pop(), list.is_empty()), (None, true));
    }
}
