//! Conversion between f16 and f32, one value at a time.

/// The value of an f16.
#[inline(always)]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    let sign = u32::from(bits & 0x8000) << 16;
    if magnitude >= 0x7c00 {
        let quiet = if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
        return f32::from_bits(sign | 0x7f80_0000 | quiet | (magnitude & 0x3ff) << 13);
    }
    // Read as an f32 the bits are too small by 2^112, subnormal ones too.
    const LIFT: f32 = f32::from_bits((127 + 112) << 23);
    f32::from_bits(sign | magnitude << 13) * LIFT
}

/// The bits of the nearest f16, ties to even; NaN stays NaN.
#[inline(always)]
pub(super) fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let rounded = if magnitude > 0x7f80_0000 {
        0x7e00 | (magnitude >> 13) as u16 & 0x3ff
    } else if magnitude >= 0x4780_0000 {
        0x7c00
    } else if magnitude < 0x3880_0000 {
        // A subnormal f16 counts units of 2^-24, the last place of 0.5.
        ((f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()) as u16
    } else {
        let rebased = magnitude - (112 << 23);
        ((rebased + 0xfff + (rebased >> 13 & 1)) >> 13) as u16
    };
    sign | rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_survives_the_way_to_f32_and_back() {
        for bits in 0..=u16::MAX {
            let x = f16_to_f32(bits);
            if x.is_nan() {
                assert!(f16_to_f32(f32_to_f16(x)).is_nan());
            } else {
                assert_eq!(f32_to_f16(x), bits);
            }
        }
        assert_eq!(f16_to_f32(0x3c00), 1.0);
        assert_eq!(f16_to_f32(0x0001), 2f32.powi(-24));
        assert_eq!(f16_to_f32(0xfbff), -65504.0);
        assert_eq!(f16_to_f32(0x7c00), f32::INFINITY);
    }

    #[test]
    fn rounding_goes_to_the_nearest_even_number() {
        for bits in 0..0x7c00 {
            let (low, high) = (f16_to_f32(bits), f16_to_f32(bits + 1));
            if high.is_finite() {
                let middle = (low + high) / 2.0;
                assert_eq!(f32_to_f16(middle), bits + (bits & 1));
                assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() + 1)), bits + 1);
                assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() - 1)), bits);
            }
        }
        assert_eq!(f32_to_f16(65519.0), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16(-1e30), 0xfc00);
        assert_eq!(f32_to_f16(1e-30), 0);
    }
}
