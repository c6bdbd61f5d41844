/*
 * Prints sizes, offsets and numbers of the interfaces that Ublkback uses, from Xen's and the kernel's own headers, one
 * "name value" a line. A test compares them with what the C# code has.
 *
 * Needs libxen-dev and linux-libc-dev. So that no 32-bit toolchain is needed, the x86_32 structures are declared here
 * with the alignment that the i386 ABI gives a uint64_t.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include <xen/xen.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>
#include <xen/io/ring.h>
#include <xen/io/blkif.h>
#include <xen/grant_table.h>
#include <xen/evtchn.h>
#include <xen/gntdev.h>
#include <linux/io_uring.h>

#define SHOW(name, value) printf("%s %lld\n", name, (long long)(value))

typedef uint64_t __attribute__((aligned(4))) uint64_i386;

struct blkif_request_i386 {
    uint8_t operation;
    uint8_t nr_segments;
    blkif_vdev_t handle;
    uint64_i386 id;
    uint64_i386 sector_number;
    struct blkif_request_segment seg[BLKIF_MAX_SEGMENTS_PER_REQUEST];
};

struct blkif_request_discard_i386 {
    uint8_t operation;
    uint8_t flag;
    blkif_vdev_t handle;
    uint64_i386 id;
    uint64_i386 sector_number;
    uint64_i386 nr_sectors;
};

struct blkif_request_indirect_i386 {
    uint8_t operation;
    uint8_t indirect_op;
    uint16_t nr_segments;
    uint64_i386 id;
    uint64_i386 sector_number;
    blkif_vdev_t handle;
    grant_ref_t indirect_grefs[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
};

struct blkif_response_i386 {
    uint64_i386 id;
    uint8_t operation;
    int16_t status;
};

int main(void)
{
    SHOW("ring.req_prod", offsetof(struct blkif_sring, req_prod));
    SHOW("ring.req_event", offsetof(struct blkif_sring, req_event));
    SHOW("ring.rsp_prod", offsetof(struct blkif_sring, rsp_prod));
    SHOW("ring.rsp_event", offsetof(struct blkif_sring, rsp_event));
    SHOW("ring.slots", offsetof(struct blkif_sring, ring));
    SHOW("ring.count.1", __CONST_RING_SIZE(blkif, 4096));
    SHOW("ring.count.16", __CONST_RING_SIZE(blkif, 16 * 4096));

    SHOW("x86_64.stride", sizeof(union blkif_sring_entry));
    SHOW("x86_64.request.id", offsetof(struct blkif_request, id));
    SHOW("x86_64.request.sector", offsetof(struct blkif_request, sector_number));
    SHOW("x86_64.request.segments", offsetof(struct blkif_request, seg));
    SHOW("x86_64.discard.count", offsetof(struct blkif_request_discard, nr_sectors));
    SHOW("x86_64.discard.id", offsetof(struct blkif_request_discard, id));
    SHOW("x86_64.discard.flag", offsetof(struct blkif_request_discard, flag));
    SHOW("x86_64.indirect.operation", offsetof(struct blkif_request_indirect, indirect_op));
    SHOW("x86_64.indirect.count", offsetof(struct blkif_request_indirect, nr_segments));
    SHOW("x86_64.indirect.id", offsetof(struct blkif_request_indirect, id));
    SHOW("x86_64.indirect.grefs", offsetof(struct blkif_request_indirect, indirect_grefs));
    SHOW("x86_64.response.size", sizeof(struct blkif_response));
    SHOW("x86_64.request.operation", offsetof(struct blkif_request, operation));
    SHOW("x86_64.request.nr_segments", offsetof(struct blkif_request, nr_segments));
    SHOW("x86_64.request.handle", offsetof(struct blkif_request, handle));
    SHOW("x86_64.response.operation", offsetof(struct blkif_response, operation));
    SHOW("x86_64.response.status", offsetof(struct blkif_response, status));

    SHOW("x86_32.stride", sizeof(struct blkif_request_i386));
    SHOW("x86_32.request.id", offsetof(struct blkif_request_i386, id));
    SHOW("x86_32.request.sector", offsetof(struct blkif_request_i386, sector_number));
    SHOW("x86_32.request.segments", offsetof(struct blkif_request_i386, seg));
    SHOW("x86_32.discard.count", offsetof(struct blkif_request_discard_i386, nr_sectors));
    SHOW("x86_32.discard.id", offsetof(struct blkif_request_discard_i386, id));
    SHOW("x86_32.indirect.count", offsetof(struct blkif_request_indirect_i386, nr_segments));
    SHOW("x86_32.indirect.id", offsetof(struct blkif_request_indirect_i386, id));
    SHOW("x86_32.indirect.grefs", offsetof(struct blkif_request_indirect_i386, indirect_grefs));
    SHOW("x86_32.response.size", sizeof(struct blkif_response_i386));
    SHOW("x86_32.response.operation", offsetof(struct blkif_response_i386, operation));
    SHOW("x86_32.response.status", offsetof(struct blkif_response_i386, status));

    SHOW("segment.size", sizeof(struct blkif_request_segment));
    SHOW("segment.first", offsetof(struct blkif_request_segment, first_sect));
    SHOW("segment.last", offsetof(struct blkif_request_segment, last_sect));
    SHOW("segment.max", BLKIF_MAX_SEGMENTS_PER_REQUEST);
    SHOW("op.read", BLKIF_OP_READ);
    SHOW("op.write", BLKIF_OP_WRITE);
    SHOW("op.barrier", BLKIF_OP_WRITE_BARRIER);
    SHOW("op.flush", BLKIF_OP_FLUSH_DISKCACHE);
    SHOW("op.discard", BLKIF_OP_DISCARD);
    SHOW("op.indirect", BLKIF_OP_INDIRECT);
    SHOW("rsp.okay", BLKIF_RSP_OKAY);
    SHOW("rsp.error", BLKIF_RSP_ERROR);
    SHOW("rsp.eopnotsupp", BLKIF_RSP_EOPNOTSUPP);

    SHOW("xenbus.initialising", XenbusStateInitialising);
    SHOW("xenbus.initwait", XenbusStateInitWait);
    SHOW("xenbus.initialised", XenbusStateInitialised);
    SHOW("xenbus.connected", XenbusStateConnected);
    SHOW("xenbus.closing", XenbusStateClosing);
    SHOW("xenbus.closed", XenbusStateClosed);

    SHOW("gntdev.map", IOCTL_GNTDEV_MAP_GRANT_REF);
    SHOW("gntdev.map.count", offsetof(struct ioctl_gntdev_map_grant_ref, count));
    SHOW("gntdev.map.index", offsetof(struct ioctl_gntdev_map_grant_ref, index));
    SHOW("gntdev.map.refs", offsetof(struct ioctl_gntdev_map_grant_ref, refs));
    SHOW("gntdev.ref.size", sizeof(struct ioctl_gntdev_grant_ref));
    SHOW("gntdev.unmap", IOCTL_GNTDEV_UNMAP_GRANT_REF);
    SHOW("gntdev.unmap.index", offsetof(struct ioctl_gntdev_unmap_grant_ref, index));
    SHOW("gntdev.unmap.count", offsetof(struct ioctl_gntdev_unmap_grant_ref, count));
    SHOW("gntdev.copy", IOCTL_GNTDEV_GRANT_COPY);
    SHOW("gntdev.copy.count", offsetof(struct ioctl_gntdev_grant_copy, count));
    SHOW("gntdev.copy.segments", offsetof(struct ioctl_gntdev_grant_copy, segments));
    SHOW("copy.size", sizeof(struct gntdev_grant_copy_segment));
    SHOW("copy.source.ref", offsetof(struct gntdev_grant_copy_segment, source.foreign.ref));
    SHOW("copy.source.offset", offsetof(struct gntdev_grant_copy_segment, source.foreign.offset));
    SHOW("copy.source.domid", offsetof(struct gntdev_grant_copy_segment, source.foreign.domid));
    SHOW("copy.dest.virt", offsetof(struct gntdev_grant_copy_segment, dest.virt));
    SHOW("copy.dest.offset", offsetof(struct gntdev_grant_copy_segment, dest.foreign.offset));
    SHOW("copy.dest.domid", offsetof(struct gntdev_grant_copy_segment, dest.foreign.domid));
    SHOW("copy.len", offsetof(struct gntdev_grant_copy_segment, len));
    SHOW("copy.flags", offsetof(struct gntdev_grant_copy_segment, flags));
    SHOW("copy.status", offsetof(struct gntdev_grant_copy_segment, status));
    SHOW("copy.source_gref", GNTCOPY_source_gref);
    SHOW("copy.dest_gref", GNTCOPY_dest_gref);
    SHOW("copy.okay", GNTST_okay);
    SHOW("copy.general_error", GNTST_general_error);
    SHOW("copy.bad_gntref", GNTST_bad_gntref);
    SHOW("copy.permission_denied", GNTST_permission_denied);

    SHOW("evtchn.bind", IOCTL_EVTCHN_BIND_INTERDOMAIN);
    SHOW("evtchn.bind.domain", offsetof(struct ioctl_evtchn_bind_interdomain, remote_domain));
    SHOW("evtchn.bind.port", offsetof(struct ioctl_evtchn_bind_interdomain, remote_port));
    SHOW("evtchn.unbind", IOCTL_EVTCHN_UNBIND);
    SHOW("evtchn.notify", IOCTL_EVTCHN_NOTIFY);

    SHOW("xs.header", sizeof(struct xsd_sockmsg));
    SHOW("xs.payload_max", XENSTORE_PAYLOAD_MAX);
    SHOW("xs.abs_path_max", XENSTORE_ABS_PATH_MAX);
    SHOW("xs.directory", XS_DIRECTORY);
    SHOW("xs.read", XS_READ);
    SHOW("xs.get_perms", XS_GET_PERMS);
    SHOW("xs.watch", XS_WATCH);
    SHOW("xs.unwatch", XS_UNWATCH);
    SHOW("xs.transaction_start", XS_TRANSACTION_START);
    SHOW("xs.transaction_end", XS_TRANSACTION_END);
    SHOW("xs.introduce", XS_INTRODUCE);
    SHOW("xs.release", XS_RELEASE);
    SHOW("xs.get_domain_path", XS_GET_DOMAIN_PATH);
    SHOW("xs.write", XS_WRITE);
    SHOW("xs.mkdir", XS_MKDIR);
    SHOW("xs.rm", XS_RM);
    SHOW("xs.set_perms", XS_SET_PERMS);
    SHOW("xs.watch_event", XS_WATCH_EVENT);
    SHOW("xs.error", XS_ERROR);
    SHOW("xs.is_domain_introduced", XS_IS_DOMAIN_INTRODUCED);
    SHOW("xs.directory_part", XS_DIRECTORY_PART);
    SHOW("xs.reset_watches", XS_RESET_WATCHES);

    SHOW("sqe.size", sizeof(struct io_uring_sqe));
    SHOW("sqe.fd", offsetof(struct io_uring_sqe, fd));
    SHOW("sqe.off", offsetof(struct io_uring_sqe, off));
    SHOW("sqe.addr", offsetof(struct io_uring_sqe, addr));
    SHOW("sqe.len", offsetof(struct io_uring_sqe, len));
    SHOW("sqe.flags", offsetof(struct io_uring_sqe, fsync_flags));
    SHOW("sqe.user_data", offsetof(struct io_uring_sqe, user_data));
    SHOW("cqe.size", sizeof(struct io_uring_cqe));
    SHOW("cqe.res", offsetof(struct io_uring_cqe, res));
    SHOW("uring.params", sizeof(struct io_uring_params));
    SHOW("uring.sq_off", offsetof(struct io_uring_params, sq_off));
    SHOW("uring.cq_off", offsetof(struct io_uring_params, cq_off));
    SHOW("uring.sq_off.array", offsetof(struct io_sqring_offsets, array));
    SHOW("uring.cq_off.cqes", offsetof(struct io_cqring_offsets, cqes));
    SHOW("uring.op.fsync", IORING_OP_FSYNC);
    SHOW("uring.op.cancel", IORING_OP_ASYNC_CANCEL);
    SHOW("uring.op.fallocate", IORING_OP_FALLOCATE);
    SHOW("uring.op.read", IORING_OP_READ);
    SHOW("uring.op.write", IORING_OP_WRITE);
    SHOW("uring.setup.cqsize", IORING_SETUP_CQSIZE);
    SHOW("uring.setup.taskrun_flag", IORING_SETUP_TASKRUN_FLAG);
    SHOW("uring.sq.taskrun", IORING_SQ_TASKRUN);
    SHOW("uring.setup.single_issuer", IORING_SETUP_SINGLE_ISSUER);
    SHOW("uring.setup.defer_taskrun", IORING_SETUP_DEFER_TASKRUN);
    return 0;
}
