use crate::Hash;

/// The leaf of a link: its hash with a byte 0 before it (RFC 6962, section 2.1).
fn leaf(link: &Hash) -> Hash {
    Hash::of(&[&[0], &link.0])
}

/// An inner node: the hash of both sides with a byte 1 before them.
fn node(left: &Hash, right: &Hash) -> Hash {
    Hash::of(&[&[1], &left.0, &right.0])
}

/// Where a tree of `count > 1` leaves is cut: the largest power of two below `count`.
fn cut(count: usize) -> usize {
    1 << (usize::BITS - 1 - (count - 1).leading_zeros())
}

/// The root of the tree over `links`. Without any it is the hash of nothing.
#[must_use]
pub fn root(links: &[Hash]) -> Hash {
    match links {
        [] => Hash::of(&[]),
        [link] => leaf(link),
        _ => {
            let (left, right) = links.split_at(cut(links.len()));
            node(&root(left), &root(right))
        }
    }
}

/// What somebody who knows the links at the places `own` (rising) needs to find the root: the roots of the largest subtrees
/// without any of them, from the left to the right.
#[must_use]
pub fn prove(links: &[Hash], own: &[usize]) -> Vec<Hash> {
    let mut path = Vec::new();
    prove_in(links, 0, own, &mut path);
    path
}

fn prove_in(links: &[Hash], first: usize, own: &[usize], path: &mut Vec<Hash>) {
    if own.is_empty() {
        path.push(root(links));
    } else if links.len() > 1 {
        let middle = cut(links.len());
        let (left, right) = links.split_at(middle);
        let (of_left, of_right) = own.split_at(own.partition_point(|at| *at < first + middle));
        prove_in(left, first, of_left, path);
        prove_in(right, first + middle, of_right, path);
    }
}

/// The root of a tree of `count` leaves, of which those at the places of `own` (rising) are known, with the rest from
/// [`prove`]. `None` where these do not fit together. Whoever asks knows the count from what was signed.
#[must_use]
pub fn rebuild(count: usize, own: &[(usize, Hash)], path: &[Hash]) -> Option<Hash> {
    let rising = own.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !rising || own.last().is_none_or(|(last, _)| *last >= count) {
        return None;
    }
    let mut path = path.iter();
    let root = rebuild_in(count, 0, own, &mut path)?;
    path.next().is_none().then_some(root)
}

fn rebuild_in(
    count: usize,
    first: usize,
    own: &[(usize, Hash)],
    path: &mut std::slice::Iter<'_, Hash>,
) -> Option<Hash> {
    if own.is_empty() {
        return path.next().copied();
    }
    if let (1, [(_, link)]) = (count, own) {
        return Some(leaf(link));
    }
    let middle = cut(count);
    let (of_left, of_right) = own.split_at(own.partition_point(|(at, _)| *at < first + middle));
    let left = rebuild_in(middle, first, of_left, path)?;
    let right = rebuild_in(count - middle, first + middle, of_right, path)?;
    Some(node(&left, &right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(count: usize) -> Vec<Hash> {
        (0..count).map(|n| Hash::of(&[&n.to_be_bytes()])).collect()
    }

    /// The hash of nothing and of one leaf of no bytes are in RFC 6962's own test vectors.
    #[test]
    fn hashes_as_the_rfc_says() {
        assert_eq!(root(&[]).to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let three = links(3);
        assert_eq!(root(&three), node(&node(&leaf(&three[0]), &leaf(&three[1])), &leaf(&three[2])));
        assert_eq!([2, 3, 4, 5, 8, 9].map(cut), [1, 2, 2, 4, 4, 8]);
    }

    #[test]
    fn every_choice_of_leaves_proves_itself_and_nothing_else() {
        for count in 1..=9usize {
            let all = links(count);
            for mask in 1u32..1 << count {
                let own: Vec<usize> = (0..count).filter(|at| mask & (1 << at) != 0).collect();
                let path = prove(&all, &own);
                let known: Vec<_> = own.iter().map(|at| (*at, all[*at])).collect();
                assert_eq!(rebuild(count, &known, &path), Some(root(&all)));
                let mut other = known.clone();
                other[0].1 = Hash::ZERO;
                assert_ne!(rebuild(count, &other, &path), Some(root(&all)));
                // The count is signed, and with it no leaf can stand at another place.
                if let Some(free) = (0..count).find(|at| !own.contains(at)) {
                    let mut moved = known.clone();
                    moved[0].0 = free;
                    moved.sort_unstable();
                    assert_ne!(rebuild(count, &moved, &path), Some(root(&all)));
                }
                let longer: Vec<_> = path.iter().copied().chain([Hash::ZERO]).collect();
                assert_eq!(rebuild(count, &known, &longer), None);
                if let Some((_, shorter)) = path.split_last() {
                    assert_ne!(rebuild(count, &known, shorter), Some(root(&all)));
                }
            }
        }
        assert_eq!(rebuild(2, &[], &[root(&links(2))]), None);
        assert_eq!(rebuild(2, &[(1, Hash::ZERO), (0, Hash::ZERO)], &[]), None);
    }
}
