using System.Runtime.InteropServices;

namespace Ublkback.Linux.Kernel;

// The structures and numbers of linux/io_uring.h that are used here.

/// <summary>What a submission asks for.</summary>
internal enum IoUringOperation : byte
{
    Sync = 3, // IORING_OP_FSYNC
    Poll = 6, // IORING_OP_POLL_ADD
    Cancel = 14, // IORING_OP_ASYNC_CANCEL
    Connect = 16, // IORING_OP_CONNECT
    Allocate = 17, // IORING_OP_FALLOCATE
    Read = 22, // IORING_OP_READ
    Write = 23, // IORING_OP_WRITE
}

/// <summary>struct io_uring_sqe, written by us before the tail is moved, read by the kernel.</summary>
[StructLayout(LayoutKind.Explicit, Size = 64)]
internal struct SubmissionEntry
{
    public const byte Punt = 1 << 4; // IOSQE_ASYNC
    public const uint DataSync = 1; // IORING_FSYNC_DATASYNC
    public const uint Readable = 1; // POLLIN

    [FieldOffset(0)]
    public IoUringOperation Operation;

    [FieldOffset(1)]
    public byte Flags;

    [FieldOffset(4)]
    public int Descriptor;

    [FieldOffset(8)]
    public ulong Offset;

    [FieldOffset(16)]
    public ulong Address;

    [FieldOffset(24)]
    public uint Length;

    [FieldOffset(28)]
    public uint OperationFlags;

    [FieldOffset(32)]
    public ulong UserData;
}

/// <summary>struct io_uring_cqe, written by the kernel, read by us before the head is moved.</summary>
[StructLayout(LayoutKind.Explicit, Size = 16)]
internal struct CompletionEntry
{
    [FieldOffset(0)]
    public ulong UserData;

    [FieldOffset(8)]
    public int Result;

    [FieldOffset(12)]
    public uint Flags;
}

/// <summary>struct io_sqring_offsets.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct SubmissionOffsets
{
    public uint Head;
    public uint Tail;
    public uint Mask;
    public uint Entries;
    public uint Flags;
    public uint Dropped;
    public uint Array;
    public uint Reserved;
    public ulong UserAddress;
}

/// <summary>struct io_cqring_offsets.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct CompletionOffsets
{
    public uint Head;
    public uint Tail;
    public uint Mask;
    public uint Entries;
    public uint Overflow;
    public uint Entry;
    public uint Flags;
    public uint Reserved;
    public ulong UserAddress;
}

/// <summary>struct io_uring_params.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct IoUringParameters
{
    public const uint CompletionSize = 1 << 3; // IORING_SETUP_CQSIZE
    public const uint TaskRunFlag = 1 << 9; // IORING_SETUP_TASKRUN_FLAG
    public const uint SingleIssuer = 1 << 12; // IORING_SETUP_SINGLE_ISSUER
    public const uint DeferTaskRun = 1 << 13; // IORING_SETUP_DEFER_TASKRUN

    public uint SubmissionEntries;
    public uint CompletionEntries;
    public uint Flags;
    public uint ThreadProcessor;
    public uint ThreadIdle;
    public uint Features;
    public uint WorkerDescriptor;
    public uint Reserved0;
    public uint Reserved1;
    public uint Reserved2;
    public SubmissionOffsets Submission;
    public CompletionOffsets Completion;
}

/// <summary>struct io_uring_getevents_arg.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct WaitArgument
{
    public ulong SignalMask;
    public uint SignalMaskSize;
    public uint MinWait;
    public ulong Time; // struct __kernel_timespec *, relative
}
