using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux;

namespace Ublkback.Images.Qcow2;

/// <summary>The bounded memory of an image for clusters that are copied. On the image's worker.</summary>
internal sealed class CopyBuffers : IDisposable
{
    /// <summary>Bytes that all copies of an image have together: eight of the largest clusters.</summary>
    public const long MaxBytes = 16 << 20;

    private readonly BufferPool _pool = new(MaxBytes);
    private readonly Waiters _returned = new();

    /// <summary>Waits for memory in one piece that starts on a page boundary.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<Memory<byte>> RentAsync(int length)
    {
        Memory<byte> buffer;
        while (!_pool.TryRent(length, out buffer)) await _returned.WaitAsync();
        return buffer;
    }

    /// <summary>Gives memory back.</summary>
    public void Return(Memory<byte> buffer)
    {
        _pool.Return(buffer);
        _returned.WakeAll();
    }

    /// <inheritdoc/>
    public void Dispose() => _pool.Dispose();
}
