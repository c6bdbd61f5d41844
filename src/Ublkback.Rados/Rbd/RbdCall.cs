using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Rados.Bindings;

namespace Ublkback.Rados.Rbd;

/// <summary>An operation on an RBD image.</summary>
internal sealed unsafe class RbdCall : CephCall
{
    /// <summary>Does what a request asks.</summary>
    public ValueTask<int> RunAsync(nint image, BlockRequest request)
    {
        ulong offset = request.Sector * BlockRequest.SectorSize;
        byte* data = PinnedMemory.AddressOf(request.Data);
        nuint length = (nuint)request.Data.Length;
        nint completion = Begin();
        return Begun(request.Operation switch
        {
            BlockOperation.Read => LibRbd.BeginRead(image, offset, length, data, completion),
            BlockOperation.Write => LibRbd.BeginWrite(image, offset, length, data, completion),
            BlockOperation.Discard =>
                LibRbd.BeginDiscard(image, offset, (ulong)request.SectorCount * BlockRequest.SectorSize, completion),
            BlockOperation.Flush => LibRbd.BeginFlush(image, completion),
            _ => -LinuxError.NotSupported,
        });
    }

    // These only fail by ending the process.
    private protected override nint Create(nint argument, delegate* unmanaged[Cdecl]<nint, nint, void> complete)
    {
        _ = LibRbd.CreateCompletion(argument, complete, out nint completion);
        return completion;
    }

    private protected override int GetResult(nint completion) => (int)LibRbd.GetResult(completion);

    private protected override void Release(nint completion) => LibRbd.ReleaseCompletion(completion);
}
