using Mono.Unix.Native;
using Ublkback.Linux.Kernel;
using Ublkback.Xen;

namespace Ublkback.EmulatedHost.Hypervisor;

/// <summary>
/// An event channel as two named pipes, one a direction. A byte in a pipe is the pending bit; reading takes all there
/// are. Whoever binds holds a lock on a pipe, which the kernel frees when the process ends.
/// </summary>
internal sealed class EmulatedEventChannel : IEventChannel
{
    private const int FifoMode = 0x180; // 0600

    private readonly FileDescriptor _out;

    private EmulatedEventChannel(FileDescriptor incoming, FileDescriptor outgoing)
    {
        Descriptor = incoming;
        _out = outgoing;
    }

    public FileDescriptor Descriptor { get; }

    public int ReadLength => MemoryMapping.PageSize;

    public bool MustUnmask => false;

    /// <summary>Binds to a port of another domain. As on Xen, the port is pending at once.</summary>
    public static EmulatedEventChannel Bind(HostLayout layout, int domid, uint port)
    {
        try
        {
            FileDescriptor incoming = OpenPipe(layout.PipeToPeer(domid, port));
            if (!OfdLock.TryExclude(incoming, 0))
            {
                incoming.Dispose();
                throw new LinuxException(LinuxError.InvalidArgument, "the port is bound");
            }

            EmulatedEventChannel channel = new(incoming, OpenPipe(layout.PipeToOwner(domid, port)));
            Signal(incoming);
            return channel;
        }
        catch (LinuxException)
        {
            throw new LinuxException(LinuxError.InvalidArgument, $"binding to port {port} of domain {domid}");
        }
    }

    /// <summary>Allocates a port of our own for another domain to bind to.</summary>
    public static EmulatedEventChannel Allocate(HostLayout layout, int domid, uint port)
    {
        MakePipe(layout.PipeToOwner(domid, port));
        MakePipe(layout.PipeToPeer(domid, port));
        return new EmulatedEventChannel(
            OpenPipe(layout.PipeToOwner(domid, port)), OpenPipe(layout.PipeToPeer(domid, port)));
    }

    public void Notify() => Signal(_out);

    public void Dispose()
    {
        Descriptor.Dispose();
        _out.Dispose();
    }

    private static unsafe void Signal(FileDescriptor pipe)
    {
        byte one = 1;
        _ = Syscall.write(pipe.Number, &one, 1); // a full pipe is pending already
    }

    // Both directions, so that it never ends while the other side is away.
    private static FileDescriptor OpenPipe(string path) =>
        FileDescriptor.Open(path, OpenFlags.O_RDWR | OpenFlags.O_NONBLOCK);

    private static void MakePipe(string path) =>
        LinuxException.Check(Syscall.mkfifo(path, (FilePermissions)FifoMode), path);
}
