using System.Runtime.InteropServices;

namespace Ublkback.Linux.Kernel;

/// <summary>
/// One io_uring. It is made and used by one thread only (SINGLE_ISSUER), and completions appear only while that thread
/// is in <see cref="Enter"/> (DEFER_TASKRUN), so nothing here needs a lock.
/// </summary>
[DataPath]
internal sealed unsafe partial class IoUring : IDisposable
{
    private const int SetupCall = 425; // unistd_64.h
    private const int EnterCall = 426;
    private const long RingsOffset = 0; // IORING_OFF_SQ_RING, shared with the completion ring since 5.4
    private const long EntriesOffset = 0x10000000; // IORING_OFF_SQES
    private const uint GetEvents = 1; // IORING_ENTER_GETEVENTS
    private const uint ExtendedArgument = 1 << 3; // IORING_ENTER_EXT_ARG, since 5.11
    private const int NanosecondsPerSecond = 1_000_000_000;
    private const int RegisterCall = 427;
    private const int RegisterMaxThreads = 19; // IORING_REGISTER_IOWQ_MAX_WORKERS
    private const uint MaxThreads = 512;

    /// <summary>Flag of the submission ring: completions wait for <see cref="Enter"/> (IORING_SQ_TASKRUN).</summary>
    internal const uint TaskRun = 1 << 2;

    /// <summary>To <see cref="Enter"/>: do not wait.</summary>
    public const long NoWait = 0;

    /// <summary>To <see cref="Enter"/>: wait until something completes.</summary>
    public const long Forever = long.MaxValue;

    private readonly FileDescriptor _descriptor;
    private readonly MemoryMapping _rings;
    private readonly MemoryMapping _entries;
    private readonly uint _submissionMask;
    private readonly uint _completionMask;
    private readonly uint* _submissionHead; // stored by the kernel
    private readonly uint* _submissionTail; // stored by us
    private readonly uint* _submissionFlags; // stored by the kernel
    private readonly uint* _completionHead; // stored by us
    private readonly uint* _completionTail; // stored by the kernel
    private readonly CompletionEntry* _completions;
    private uint _tail; // of submissions: prepared, perhaps not yet shown to the kernel

    /// <summary>Makes a ring of the calling thread.</summary>
    /// <exception cref="LinuxException">The kernel has no io_uring of this kind (6.1 or later has).</exception>
    public IoUring(uint submissions, uint completions)
    {
        IoUringParameters parameters = new()
        {
            CompletionEntries = completions,
            Flags = IoUringParameters.CompletionSize | IoUringParameters.SingleIssuer | IoUringParameters.DeferTaskRun
                | IoUringParameters.TaskRunFlag,
        };
        _descriptor = new FileDescriptor(LinuxException.Check(
            (int)syscall(SetupCall, (nint)submissions, (nint)(&parameters), 0, 0, 0, 0),
            "io_uring (Linux 6.1 or later, and kernel.io_uring_disabled=0, are needed)"));

        long submissionEnd = parameters.Submission.Array + (parameters.SubmissionEntries * sizeof(uint));
        long completionEnd = parameters.Completion.Entry
            + ((long)parameters.CompletionEntries * sizeof(CompletionEntry));
        _rings = MemoryMapping.Shared(_descriptor, RingsOffset, Math.Max(submissionEnd, completionEnd));
        _entries = MemoryMapping.Shared(
            _descriptor, EntriesOffset, (long)parameters.SubmissionEntries * sizeof(SubmissionEntry));

        byte* rings = _rings.Address;
        _submissionHead = (uint*)(rings + parameters.Submission.Head);
        _submissionTail = (uint*)(rings + parameters.Submission.Tail);
        _submissionFlags = (uint*)(rings + parameters.Submission.Flags);
        _submissionMask = parameters.SubmissionEntries - 1;
        _completionHead = (uint*)(rings + parameters.Completion.Head);
        _completionTail = (uint*)(rings + parameters.Completion.Tail);
        _completionMask = parameters.CompletionEntries - 1;
        _completions = (CompletionEntry*)(rings + parameters.Completion.Entry);
        _tail = *_submissionTail;

        // By default a few per core: files that stall would leave none to others. They are made when they are needed.
        uint* maxThreads = stackalloc uint[2] { MaxThreads, 0 };
        LinuxException.Check(
            (int)syscall(RegisterCall, _descriptor.Number, RegisterMaxThreads, (nint)maxThreads, 2, 0, 0),
            "io_uring_register");

        // Slot n of the indirection array always names entry n.
        uint* array = (uint*)(rings + parameters.Submission.Array);
        for (uint i = 0; i < parameters.SubmissionEntries; i++) array[i] = i;
    }

    /// <summary>Prepares one submission; when the ring is full, hands what is there to the kernel first.</summary>
    public ref SubmissionEntry Prepare()
    {
        while (_tail - Volatile.Read(ref *_submissionHead) > _submissionMask) Enter(NoWait);
        ref SubmissionEntry entry = ref ((SubmissionEntry*)_entries.Address)[_tail & _submissionMask];
        entry = default;
        _tail++;
        return ref entry;
    }

    /// <summary>Whether <see cref="Enter"/> has anything to do but wait.</summary>
    public bool HasWork =>
        _tail != *_submissionTail || *_completionHead != Volatile.Read(ref *_completionTail)
        || (Volatile.Read(ref *_submissionFlags) & TaskRun) != 0;

    /// <summary>
    /// Submits all that is prepared and lets completions appear; waits for at least one, so many nanoseconds at most.
    /// </summary>
    public void Enter(long patience)
    {
        // The entries are written before the kernel sees the tail.
        Volatile.Write(ref *_submissionTail, _tail);
        uint count = _tail - Volatile.Read(ref *_submissionHead);
        bool ready = *_completionHead != Volatile.Read(ref *_completionTail);
        long* time = stackalloc long[2] { patience / NanosecondsPerSecond, patience % NanosecondsPerSecond };
        WaitArgument argument = new() { Time = (ulong)time };
        bool isTimed = patience is not (NoWait or Forever);
        nint result = syscall(
            EnterCall, _descriptor.Number, (nint)count, patience == NoWait || ready ? 0 : 1,
            (nint)(isTimed ? GetEvents | ExtendedArgument : GetEvents), isTimed ? (nint)(&argument) : 0,
            isTimed ? sizeof(WaitArgument) : 0);
        if (result >= 0) return;
        int errno = Marshal.GetLastPInvokeError();
        if (errno is not (LinuxError.Interrupted or LinuxError.TryAgain or LinuxError.Busy or LinuxError.TimedOut))
            throw new LinuxException(errno, "io_uring_enter");
    }

    /// <summary>Takes one completion.</summary>
    public bool TryTake(out CompletionEntry completion)
    {
        uint head = *_completionHead;
        // The entry is read after the tail that covers it.
        if (head == Volatile.Read(ref *_completionTail))
        {
            completion = default;
            return false;
        }

        completion = _completions[head & _completionMask];
        // The slot is given back after it has been read.
        Volatile.Write(ref *_completionHead, head + 1);
        return true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _entries.Dispose();
        _rings.Dispose();
        _descriptor.Dispose();
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint syscall(nint number, nint a, nint b, nint c, nint d, nint e, nint f);
}
