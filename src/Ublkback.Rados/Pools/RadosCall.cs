using Ublkback.Linux.Kernel;
using Ublkback.Rados.Bindings;

namespace Ublkback.Rados.Pools;

/// <summary>An operation on an object.</summary>
public sealed unsafe class RadosCall : CephCall
{
    /// <summary>Reads from an object into memory that stays where it is.</summary>
    public ValueTask<int> ReadAsync(RadosPool pool, RadosName name, long offset, Memory<byte> target)
    {
        pool.Pass("read", name);
        fixed (byte* at = name.Bytes)
            return Begun(LibRados.BeginRead(
                pool.Handle, at, Begin(), PinnedMemory.AddressOf(target), (nuint)target.Length, (ulong)offset));
    }

    /// <summary>Makes changes.</summary>
    public ValueTask<int> ChangeAsync(RadosPool pool, RadosName name, RadosWrite write)
    {
        pool.Pass("change", name);
        fixed (byte* at = name.Bytes) return Begun(LibRados.BeginOperate(write.Handle, pool.Handle, Begin(), at, 0, 0));
    }

    // These only fail by ending the process.
    private protected override nint Create(nint argument, delegate* unmanaged[Cdecl]<nint, nint, void> complete)
    {
        _ = LibRados.CreateCompletion(argument, complete, out nint completion);
        return completion;
    }

    private protected override int GetResult(nint completion) => LibRados.GetResult(completion);

    private protected override void Release(nint completion) => LibRados.ReleaseCompletion(completion);
}
