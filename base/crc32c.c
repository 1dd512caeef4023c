#include "base/crc32c.h"

#include <string.h>

#define SHIFT(c) (((c) >> 1) ^ (0x82F63B78u & (0u - ((c)&1u))))
#define ENTRY(c) SHIFT(SHIFT(SHIFT(SHIFT((uint32_t)(c)))))

// One entry per half byte: the remainder of its four bits.
static const uint32_t half_bytes[16] = {ENTRY(0),  ENTRY(1),  ENTRY(2),  ENTRY(3), ENTRY(4),  ENTRY(5),
                                        ENTRY(6),  ENTRY(7),  ENTRY(8),  ENTRY(9), ENTRY(10), ENTRY(11),
                                        ENTRY(12), ENTRY(13), ENTRY(14), ENTRY(15)};

uint32_t vl_crc32c_portable(uint32_t crc, const void *data, int64_t size) {
    const uint8_t *byte = data;
    crc = ~crc;
    for (int64_t i = 0; i < size; i++) {
        crc ^= byte[i];
        crc = half_bytes[crc & 15] ^ (crc >> 4);
        crc = half_bytes[crc & 15] ^ (crc >> 4);
    }
    return ~crc;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data, int64_t size) {
    const uint8_t *byte = data;
    uint64_t value = ~crc;
    int64_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, byte + i, sizeof word);
        value = __builtin_ia32_crc32di(value, word);
    }
    uint32_t low = (uint32_t)value;
    for (; i < size; i++) low = __builtin_ia32_crc32qi(low, byte[i]);
    return ~low;
}

uint32_t vl_crc32c(uint32_t crc, const void *data, int64_t size) {
    return __builtin_cpu_supports("sse4.2") ? crc32c_sse42(crc, data, size) : vl_crc32c_portable(crc, data, size);
}

#else

uint32_t vl_crc32c(uint32_t crc, const void *data, int64_t size) { return vl_crc32c_portable(crc, data, size); }

#endif
