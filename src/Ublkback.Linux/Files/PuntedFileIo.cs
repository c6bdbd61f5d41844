using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Linux.Files;

/// <summary>
/// I/O of one file on one worker, for files whose file system cannot promise not to block (FUSE, network file systems).
/// The kernel would ask the file system itself whether it would, and that may block the worker; so each request goes to
/// one of the kernel's threads at once, and only a few at a time, since other files need such threads too.
/// </summary>
[DataPath]
public sealed partial class PuntedFileIo(FileDescriptor file)
{
    /// <summary>Most requests of one file on the kernel's threads of one worker.</summary>
    public const int MaxUnderWay = 8;

    private const int NoWait = 8; // RWF_NOWAIT, linux/fs.h

    private readonly UringOperations _operations = Worker.Current.Operations;
    private readonly Queue<IoOperation> _waiting = new();
    private int _free = MaxUnderWay;

    /// <summary>Whether a file's file system cannot promise not to block.</summary>
    public static unsafe bool Fits(FileDescriptor file)
    {
        byte buffer;
        IoVector vector = new() { Address = &buffer, Length = 1 };
        return preadv2(file, &vector, 1, 0, NoWait) < 0 && Marshal.GetLastPInvokeError() == LinuxError.NotSupported;
    }

    /// <summary>Reads; the result is a byte count or −errno.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<int> ReadAsync(Memory<byte> buffer, long offset)
    {
        await EnterAsync();
        int result = await _operations.ReadAsync(file, buffer, offset, isPunted: true);
        Leave();
        return result;
    }

    /// <summary>Writes; the result is a byte count or −errno.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<int> WriteAsync(Memory<byte> buffer, long offset)
    {
        await EnterAsync();
        int result = await _operations.WriteAsync(file, buffer, offset, isPunted: true);
        Leave();
        return result;
    }

    private ValueTask<int> EnterAsync()
    {
        if (_free > 0)
        {
            _free--;
            return default;
        }

        IoOperation turn = _operations.Rent();
        _waiting.Enqueue(turn);
        return turn.Task;
    }

    private void Leave()
    {
        if (_waiting.TryDequeue(out IoOperation? next)) next.Completed(0);
        else _free++;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static unsafe partial nint preadv2(
        FileDescriptor file, IoVector* vectors, int count, long offset, int flags);

    private unsafe struct IoVector
    {
        public void* Address;
        public nuint Length;
    }
}
