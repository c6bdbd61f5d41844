using Ublkback.Linux.Kernel;

namespace Ublkback.Linux.Workers;

/// <summary>
/// Prepares the I/O operations of one worker on its io_uring, and hands each completion to its operation. The loop
/// submits what was prepared in its one system call. On the worker.
/// </summary>
[DataPath]
public sealed unsafe class UringOperations : IDisposable
{
    private const uint SubmissionCount = 512;
    private const uint CompletionCount = 8192; // beyond it the kernel keeps a list (IORING_FEAT_NODROP)

    private readonly IoUring _ring = new(SubmissionCount, CompletionCount);
    private readonly List<RingOperation?> _underWay = [];
    private readonly Stack<int> _freeSlots = new();
    private readonly Stack<IoOperation> _freeOperations = new();

    internal UringOperations()
    {
    }

    /// <summary>True if <see cref="Enter"/> has anything to do but wait.</summary>
    internal bool HasWork => _ring.HasWork;

    /// <summary>
    /// Reads at an offset (−1: of a stream) into memory that never moves; the result is a byte count or −errno.
    /// </summary>
    public ValueTask<int> ReadAsync(FileDescriptor file, Memory<byte> buffer, long offset, bool isPunted = false)
    {
        IoOperation operation = Rent();
        Submit(operation, IoUringOperation.Read, file, buffer, (ulong)offset, isPunted);
        return operation.Task;
    }

    /// <summary>
    /// Writes memory that never moves at an offset (−1: to a stream); the result is a byte count or −errno.
    /// </summary>
    public ValueTask<int> WriteAsync(FileDescriptor file, Memory<byte> buffer, long offset, bool isPunted = false)
    {
        IoOperation operation = Rent();
        Submit(operation, IoUringOperation.Write, file, buffer, (ulong)offset, isPunted);
        return operation.Task;
    }

    /// <summary>
    /// Connects a socket to an address, as the kernel has it, in memory that never moves; the result is 0 or −errno.
    /// </summary>
    internal ValueTask<int> ConnectAsync(FileDescriptor socket, Memory<byte> address)
    {
        IoOperation operation = Rent();
        ref SubmissionEntry entry = ref Begin(operation);
        entry.Operation = IoUringOperation.Connect;
        entry.Descriptor = socket.Number;
        entry.Address = (ulong)PinnedMemory.AddressOf(address);
        entry.Offset = (ulong)address.Length;
        return operation.Task;
    }

    /// <summary>Starts a read of a stream-like descriptor into memory that never moves.</summary>
    public void StartRead(RingOperation operation, FileDescriptor file, Memory<byte> buffer) =>
        Submit(operation, IoUringOperation.Read, file, buffer, ulong.MaxValue);

    /// <summary>Starts a write to a stream-like descriptor from memory that never moves.</summary>
    public void StartWrite(RingOperation operation, FileDescriptor file, Memory<byte> buffer) =>
        Submit(operation, IoUringOperation.Write, file, buffer, ulong.MaxValue);

    /// <summary>Starts an fdatasync.</summary>
    public void StartDataSync(RingOperation operation, FileDescriptor file)
    {
        ref SubmissionEntry entry = ref Begin(operation);
        entry.Operation = IoUringOperation.Sync;
        entry.Descriptor = file.Number;
        entry.OperationFlags = SubmissionEntry.DataSync;
    }

    /// <summary>Waits until a descriptor can be read.</summary>
    internal void StartPoll(RingOperation operation, int descriptor)
    {
        ref SubmissionEntry entry = ref Begin(operation);
        entry.Operation = IoUringOperation.Poll;
        entry.Descriptor = descriptor;
        entry.OperationFlags = SubmissionEntry.Readable;
    }

    /// <summary>Starts to free a range of a file, which keeps its size and reads as zeros there.</summary>
    public void StartPunchHole(RingOperation operation, FileDescriptor file, long offset, long length)
    {
        ref SubmissionEntry entry = ref Begin(operation);
        entry.Operation = IoUringOperation.Allocate;
        entry.Descriptor = file.Number;
        entry.Offset = (ulong)offset;
        entry.Address = (ulong)length;
        entry.Length = FileHole.PunchMode;
    }

    /// <summary>Asks the kernel to end an operation early; it then completes, usually as cancelled.</summary>
    public void Cancel(RingOperation operation)
    {
        if (!operation.IsUnderWay) return;
        ulong target = (ulong)operation.Slot;
        IgnoredOperation cancel = new(); // off the path: an operation is cancelled
        ref SubmissionEntry entry = ref Begin(cancel);
        entry.Operation = IoUringOperation.Cancel;
        entry.Address = target;
    }

    /// <inheritdoc/>
    public void Dispose() => _ring.Dispose();

    /// <summary>Rents an operation that the caller completes itself.</summary>
    internal IoOperation Rent() =>
        _freeOperations.TryPop(out IoOperation? operation) ? operation : new IoOperation(_freeOperations);

    /// <summary>Submits the prepared operations; waits at most so many nanoseconds for one to complete.</summary>
    internal void Enter(long patience) => _ring.Enter(patience);

    /// <summary>Hands every completion that has appeared to its operation.</summary>
    internal void Complete()
    {
        while (_ring.TryTake(out CompletionEntry completion)) Complete(completion);
    }

    private void Complete(in CompletionEntry completion)
    {
        int slot = (int)completion.UserData;
        RingOperation operation = _underWay[slot]!;
        _underWay[slot] = null;
        _freeSlots.Push(slot);
        operation.Slot = -1;
        operation.Completed(completion.Result);
    }

    private void Submit(
        RingOperation operation, IoUringOperation code, FileDescriptor file, Memory<byte> buffer, ulong offset,
        bool isPunted = false)
    {
        ref SubmissionEntry entry = ref Begin(operation);
        entry.Operation = code;
        entry.Flags = isPunted ? SubmissionEntry.Punt : (byte)0;
        entry.Descriptor = file.Number;
        entry.Address = (ulong)PinnedMemory.AddressOf(buffer);
        entry.Length = (uint)buffer.Length;
        entry.Offset = offset;
    }

    private ref SubmissionEntry Begin(RingOperation operation)
    {
        if (operation.IsUnderWay) throw new InvalidOperationException("the operation is under way already");
        if (!_freeSlots.TryPop(out int slot))
        {
            slot = _underWay.Count;
            _underWay.Add(null);
        }

        _underWay[slot] = operation;
        operation.Slot = slot;
        ref SubmissionEntry entry = ref _ring.Prepare();
        entry.UserData = (ulong)slot;
        return ref entry;
    }

    private sealed class IgnoredOperation : RingOperation
    {
        protected internal override void Completed(int result)
        {
        }
    }
}
