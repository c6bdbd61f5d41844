using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Workers;

namespace Ublkback.Images.Common;

/// <summary>The bounded memory of an image for data that it copies itself. On the image's worker.</summary>
public sealed class ImageScratch : IDisposable
{
    /// <summary>Bytes that all copies of an image have together.</summary>
    public const long MaxBytes = 16 << 20;

    private readonly BufferPool _pool = new(MaxBytes);
    private readonly LoopCondition _returned = new();

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
