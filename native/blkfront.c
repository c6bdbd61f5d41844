/*
 * A second opinion on the ring: a frontend for an emulated host, made of Xen's own ring.h and blkif.h and of
 * libxenstore. It connects to a disk that a toolstack has attached, writes a pattern over the disk's first megabytes
 * with as many requests in flight as the ring takes, flushes, reads everything back, compares, and disconnects.
 *
 *   blkfront HOST-DIRECTORY DOMID DEVICE-ID MEGABYTES
 *
 * The emulated host's side of it: domains/DOMID/memory is the domain's memory, whose first 128 pages are a version 1
 * grant table; an event channel is a pair of named pipes in domains/DOMID/ports.
 */
#define _GNU_SOURCE
#define __XEN_INTERFACE_VERSION__ 0x00040b00 /* ring.h then takes the barriers defined below */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xenstore.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>

/* What ring.h wants from its user. */
#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()
#include <xen/io/blkif.h>

#define PAGE 4096
#define TABLE_PAGES 128
#define MEMORY_BYTES (256ul << 20)
#define SEGMENTS 11
#define PORT 4242
#define WAIT_MS 10000

static struct xs_handle *store;
static const char *host, *domid, *device;
static uint8_t *memory;
static blkif_front_ring_t ring;
static int event_in, event_out;

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "blkfront: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static char *front_path(const char *node)
{
    static char path[256];
    snprintf(path, sizeof(path), "/local/domain/%s/device/vbd/%s/%s", domid, device, node);
    return path;
}

static void put_node(const char *node, const char *format, ...)
{
    char value[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof(value), format, arguments);
    if (!xs_write(store, XBT_NULL, front_path(node), value, strlen(value)))
        die("cannot write %s", node);
}

static void await_backend(const char *backend, int state)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/state", backend);
    if (!xs_watch(store, path, "backend"))
        die("cannot watch %s", path);
    for (;;) {
        unsigned int count;
        struct pollfd wait = { .fd = xs_fileno(store), .events = POLLIN };
        if (poll(&wait, 1, WAIT_MS) != 1)
            die("the backend does not reach state %d", state);
        free(xs_read_watch(store, &count));
        char *value = xs_read(store, XBT_NULL, path, &count);
        int now = value ? atoi(value) : 0;
        free(value);
        if (now == state)
            break;
    }
    xs_unwatch(store, path, "backend");
}

static uint8_t *page(unsigned int number)
{
    return memory + (TABLE_PAGES + number) * (size_t)PAGE;
}

/* Page n is granted by reference 8 + n; the first eight are reserved. */
static grant_ref_t grant(unsigned int number)
{
    volatile grant_entry_v1_t *entry = (grant_entry_v1_t *)memory + 8 + number;
    entry->frame = TABLE_PAGES + number;
    entry->domid = 0;
    __sync_synchronize();
    entry->flags = GTF_permit_access;
    return 8 + number;
}

static int open_pipe(const char *suffix)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/domains/%s/ports/%d.%s", host, domid, PORT, suffix);
    if (mkfifo(path, 0600) && errno != EEXIST)
        die("%s: %s", path, strerror(errno));
    int pipe = open(path, O_RDWR | O_NONBLOCK);
    if (pipe < 0)
        die("%s: %s", path, strerror(errno));
    return pipe;
}

static void fill(uint8_t *bytes, uint64_t sector)
{
    for (int i = 0; i < 512; i += 8) {
        uint64_t value = (sector * 0x9e3779b97f4a7c15ull) ^ (uint64_t)i;
        memcpy(bytes + i, &value, 8);
    }
}

static void push(void)
{
    int notify;
    char byte = 1;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&ring, notify);
    if (notify && write(event_out, &byte, 1) < 0 && errno != EAGAIN)
        die("notify: %s", strerror(errno));
}

/* Every slot has eleven pages of its own; the id of a request is its slot. */
static void submit(int slot, int operation, uint64_t sector, int segments)
{
    blkif_request_t *request = RING_GET_REQUEST(&ring, ring.req_prod_pvt);
    request->operation = operation;
    request->nr_segments = segments;
    request->handle = 0;
    request->id = slot;
    request->sector_number = sector;
    for (int i = 0; i < segments; i++) {
        request->seg[i].gref = grant(1 + slot * SEGMENTS + i);
        request->seg[i].first_sect = 0;
        request->seg[i].last_sect = 7;
    }
    ring.req_prod_pvt++;
}

static uint64_t sector_of[1024];
static int segments_of[1024];

static void check_data(int slot)
{
    uint8_t expected[512];
    for (int i = 0; i < segments_of[slot] * 8; i++) {
        fill(expected, sector_of[slot] + i);
        if (memcmp(page(1 + slot * SEGMENTS) + i * 512, expected, 512))
            die("wrong data in sector %llu", (unsigned long long)sector_of[slot] + i);
    }
}

/* One pass over the disk with the whole ring in flight. */
static void run(int operation, uint64_t sectors)
{
    int size = RING_SIZE(&ring), in_flight = 0, free_count = size, *free_slots = malloc(size * sizeof(int));
    char *busy = calloc(size, 1);
    uint64_t next = 0;
    for (int i = 0; i < size; i++)
        free_slots[i] = i;
    while (next < sectors || in_flight) {
        while (next < sectors && free_count) {
            int slot = free_slots[--free_count];
            uint64_t left = (sectors - next) / 8;
            int segments = operation == BLKIF_OP_FLUSH_DISKCACHE ? 0 : left < SEGMENTS ? (int)left : SEGMENTS;
            sector_of[slot] = next;
            segments_of[slot] = segments;
            for (int i = 0; operation == BLKIF_OP_WRITE && i < segments * 8; i++)
                fill(page(1 + slot * SEGMENTS) + i * 512, next + i);
            submit(slot, operation, next, segments);
            busy[slot] = 1;
            next += segments ? segments * 8 : sectors;
            in_flight++;
        }
        push();

        int more;
        do {
            RING_IDX produced = ring.sring->rsp_prod;
            xen_rmb();
            while (ring.rsp_cons != produced) {
                blkif_response_t *response = RING_GET_RESPONSE(&ring, ring.rsp_cons);
                int slot = response->id;
                if (response->id >= (uint64_t)size || !busy[slot])
                    die("an answer to no request: %llu", (unsigned long long)response->id);
                if (response->status != BLKIF_RSP_OKAY || response->operation != operation)
                    die("operation %d at sector %llu: status %d", operation,
                        (unsigned long long)sector_of[slot], response->status);
                if (operation == BLKIF_OP_READ)
                    check_data(slot);
                busy[slot] = 0;
                free_slots[free_count++] = slot;
                in_flight--;
                ring.rsp_cons++;
            }
            RING_FINAL_CHECK_FOR_RESPONSES(&ring, more);
        } while (more);

        if (in_flight && (next >= sectors || !free_count)) {
            char bytes[64];
            struct pollfd wait = { .fd = event_in, .events = POLLIN };
            if (poll(&wait, 1, WAIT_MS) != 1)
                die("no event for %d ms with %d requests in flight", WAIT_MS, in_flight);
            if (read(event_in, bytes, sizeof(bytes)) < 0 && errno != EAGAIN)
                die("read: %s", strerror(errno));
        }
    }
    free(busy);
    free(free_slots);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: blkfront HOST-DIRECTORY DOMID DEVICE-ID MEGABYTES\n");
        return 2;
    }
    host = argv[1];
    domid = argv[2];
    device = argv[3];
    uint64_t sectors = strtoull(argv[4], NULL, 10) * 2048;

    char path[512];
    snprintf(path, sizeof(path), "%s/xenstored/socket", host);
    setenv("XENSTORED_PATH", path, 1);
    store = xs_open(0);
    if (!store)
        die("no store at %s", path);
    snprintf(path, sizeof(path), "%s/domains/%s/memory", host, domid);
    int file = open(path, O_RDWR);
    memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || memory == MAP_FAILED)
        die("%s: %s", path, strerror(errno));

    unsigned int length;
    char *backend = xs_read(store, XBT_NULL, front_path("backend"), &length);
    if (!backend)
        die("domain %s has no disk %s", domid, device);
    await_backend(backend, XenbusStateInitWait);

    blkif_sring_t *shared = (blkif_sring_t *)page(0);
    SHARED_RING_INIT(shared);
    FRONT_RING_INIT(&ring, shared, PAGE);
    event_in = open_pipe("to-owner");
    event_out = open_pipe("to-peer");
    put_node("ring-ref", "%u", grant(0));
    put_node("event-channel", "%d", PORT);
    put_node("protocol", "%s", XEN_IO_PROTO_ABI_X86_64);
    put_node("state", "%d", XenbusStateInitialised);
    await_backend(backend, XenbusStateConnected);
    put_node("state", "%d", XenbusStateConnected);

    run(BLKIF_OP_WRITE, sectors);
    run(BLKIF_OP_FLUSH_DISKCACHE, 8);
    memset(page(1), 0, (size_t)RING_SIZE(&ring) * SEGMENTS * PAGE);
    run(BLKIF_OP_READ, sectors);

    put_node("state", "%d", XenbusStateClosing);
    await_backend(backend, XenbusStateClosing);
    put_node("state", "%d", XenbusStateClosed);
    await_backend(backend, XenbusStateClosed);
    printf("%llu sectors written, flushed, read and right\n", (unsigned long long)sectors);
    return 0;
}
