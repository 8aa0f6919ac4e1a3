//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d), generator 2.
//!
//! Addition is XOR. Tables are made at compile time from [`double`] alone. The column weights of
//! Q are `exp2(column)`; they are distinct and never 0 for columns below 255, which is what makes
//! any two missing columns recoverable (H. P. Anvin, "The mathematics of RAID-6").

/// The polynomial 0x11d without its top bit: what a carry out of bit 7 folds back to.
pub(crate) const POLYNOMIAL: u8 = 0x1d;

/// Products of one constant with every low nibble (first row) and every high nibble (second row):
/// `c * b == rows[0][b & 15] ^ rows[1][b >> 4]`. One 16-byte row is one shuffle table.
pub(crate) type Nibbles = [[u8; 16]; 2];

/// Multiplies by the generator.
pub(crate) const fn double(value: u8) -> u8 {
    (value << 1) ^ (POLYNOMIAL & 0u8.wrapping_sub(value >> 7))
}

/// `EXP[i]` is 2^i for `i` below 255, the order of the generator.
const EXP: [u8; 255] = {
    let mut table = [0; 255];
    let mut value = 1;
    let mut power = 0;
    while power < 255 {
        table[power] = value;
        value = double(value);
        power += 1;
    }
    assert!(value == 1, "2 generates the whole group");
    table
};

/// `LOG[v]` is the power of 2 that gives `v`; `LOG[0]` is never read.
const LOG: [u8; 256] = {
    let mut table = [0; 256];
    let mut power = 0;
    while power < 255 {
        table[EXP[power] as usize] = power as u8;
        power += 1;
    }
    table
};

/// [`Nibbles`] of every constant; 8 KiB.
static NIBBLES: [Nibbles; 256] = {
    let mut table = [[[0; 16]; 2]; 256];
    let mut constant = 0;
    while constant < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            table[constant][0][nibble] = mul(constant as u8, nibble as u8);
            table[constant][1][nibble] = mul(constant as u8, (nibble as u8) << 4);
            nibble += 1;
        }
        constant += 1;
    }
    table
};

/// The product of two field elements.
pub(crate) const fn mul(left: u8, right: u8) -> u8 {
    if left == 0 || right == 0 {
        return 0;
    }
    EXP[(LOG[left as usize] as usize + LOG[right as usize] as usize) % 255]
}

/// The inverse of a non-zero element.
pub(crate) fn inverse(value: u8) -> u8 {
    assert!(value != 0, "0 has no inverse in GF(2^8)");
    EXP[(255 - LOG[usize::from(value)] as usize) % 255]
}

/// 2 to the power of a column number: the weight of that column in Q.
pub(crate) fn exp2(column: usize) -> u8 {
    assert!(column < 255, "column {column} has no weight of its own in GF(2^8)");
    EXP[column]
}

/// The shuffle tables that multiply by `constant`.
pub(crate) fn nibbles(constant: u8) -> &'static Nibbles {
    &NIBBLES[usize::from(constant)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication from its definition: shift, add, and reduce the 15-bit product.
    fn mul_by_definition(left: u8, right: u8) -> u8 {
        let mut product = 0u16;
        for bit in 0..8 {
            if right >> bit & 1 == 1 {
                product ^= u16::from(left) << bit;
            }
        }
        for bit in (8..15).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11d << (bit - 8);
            }
        }
        u8::try_from(product).unwrap()
    }

    #[test]
    fn every_product_is_the_defined_one() {
        for left in 0..=255 {
            for right in 0..=255 {
                let expected = mul_by_definition(left, right);
                assert_eq!(mul(left, right), expected, "{left} * {right}");
                let [low, high] = nibbles(left);
                let by_table = low[usize::from(right & 15)] ^ high[usize::from(right >> 4)];
                assert_eq!(by_table, expected, "{left} * {right} by nibbles");
            }
            assert_eq!(double(left), mul_by_definition(left, 2));
        }
    }

    #[test]
    fn every_element_but_zero_has_its_inverse() {
        for value in 1..=255 {
            assert_eq!(mul_by_definition(value, inverse(value)), 1, "{value}");
        }
    }

    #[test]
    fn weights_of_columns_are_distinct() {
        let mut seen = [false; 256];
        for column in 0..255 {
            let weight = exp2(column);
            assert!(weight != 0 && !seen[usize::from(weight)], "column {column}");
            seen[usize::from(weight)] = true;
        }
    }
}
