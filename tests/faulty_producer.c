/* A GenTL producer whose cameras can be unplugged: it stands before the real one, which it is linked to, and
   which answers whatever is not here. While the file CABLE exists it says how the cameras fail:
   "gone": no frames, no registers, not listed; "silent": no frames. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { IO_ERROR = -1010, TIMEOUT = -1011 }; /* of the GenTL standard */

static int fails(const char *how)
{
    char said[16] = "";
    FILE *file = fopen(CABLE, "r");
    if (!file)
        return 0;
    size_t n = fread(said, 1, sizeof said - 1, file);
    fclose(file);
    return !how || (n == strlen(how) && !memcmp(said, how, n));
}

#define REAL(name, ...) ((int32_t(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

int32_t EventGetData(void *event, void *data, size_t *size, uint64_t ms)
{
    if (!fails(NULL))
        return REAL("EventGetData", void *, void *, size_t *, uint64_t)(event, data, size, ms);
    usleep(1000 * (ms < 100 ? ms : 100));
    return TIMEOUT;
}

static void *cameras[64]; /* ports of cameras; interfaces have ports as well, which go on answering */
static unsigned opened;

int32_t DevGetPort(void *device, void **port)
{
    int32_t answer = REAL("DevGetPort", void *, void **)(device, port);
    cameras[opened++ % 64] = *port;
    return answer;
}

static int gone(const void *port)
{
    for (unsigned i = 0; i < 64; i++)
        if (cameras[i] == port)
            return fails("gone");
    return 0;
}

int32_t GCReadPort(void *port, uint64_t address, void *data, size_t *size)
{
    if (gone(port))
        return IO_ERROR;
    return REAL("GCReadPort", void *, uint64_t, void *, size_t *)(port, address, data, size);
}

int32_t GCWritePort(void *port, uint64_t address, const void *data, size_t *size)
{
    if (gone(port))
        return IO_ERROR;
    return REAL("GCWritePort", void *, uint64_t, const void *, size_t *)(port, address, data, size);
}

int32_t IFGetNumDevices(void *interface, uint32_t *count)
{
    int32_t answer = REAL("IFGetNumDevices", void *, uint32_t *)(interface, count);
    if (fails("gone"))
        *count = 0;
    return answer;
}
