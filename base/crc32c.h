// CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected), as iSCSI and many storage formats use it.
#ifndef VL_BASE_CRC32C_H
#define VL_BASE_CRC32C_H

#include <stdint.h>

// The checksum of `crc`'s bytes followed by `size` further ones; start with crc = 0. "123456789" gives 0xE3069283.
// Uses the processor's instruction where there is one.
uint32_t vl_crc32c(uint32_t crc, const void *data, int64_t size);

// The same without the instruction; for the test that holds one against the other.
uint32_t vl_crc32c_portable(uint32_t crc, const void *data, int64_t size);

#endif
