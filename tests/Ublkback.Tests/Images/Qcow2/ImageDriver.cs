using Ublkback.Block;
using Ublkback.Linux;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>Uses an image from a test's thread: its requests run on a worker.</summary>
internal sealed class ImageDriver(Worker worker, IBlockImage image)
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(20);

    public IBlockImage Image => image;

    public async Task WriteAsync(long offset, byte[] data) =>
        NUnit.Framework.Assert.That(await TryWriteAsync(offset, data), NUnit.Framework.Is.EqualTo(BlockStatus.Okay));

    public Task<BlockStatus> TryWriteAsync(long offset, byte[] data) => RunAsync(BlockOperation.Write, offset, data.Length, data);

    public async Task<byte[]> ReadAsync(long offset, int length)
    {
        byte[] data = new byte[length];
        NUnit.Framework.Assert.That(await TryReadAsync(offset, data), NUnit.Framework.Is.EqualTo(BlockStatus.Okay));
        return data;
    }

    public Task<BlockStatus> TryReadAsync(long offset, byte[] data) => RunAsync(BlockOperation.Read, offset, data.Length, data);

    public async Task FlushAsync() =>
        NUnit.Framework.Assert.That(await TryFlushAsync(), NUnit.Framework.Is.EqualTo(BlockStatus.Okay));

    public Task<BlockStatus> TryFlushAsync() => RunAsync(BlockOperation.Flush, 0, 0, []);

    public async Task DiscardAsync(long offset, long length) =>
        NUnit.Framework.Assert.That(await RunAsync(BlockOperation.Discard, offset, length, []), NUnit.Framework.Is.EqualTo(BlockStatus.Okay));

    public async Task<BlockStatus> RunAsync(BlockOperation operation, long offset, long byteCount, byte[] data)
    {
        TaskCompletionSource<BlockStatus> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        worker.Post(async () =>
        {
            try
            {
                Memory<byte> memory = data.Length == 0 ? default : PinnedMemory.AllocatePages(data.Length);
                data.CopyTo(memory);
                BlockRequest request = new() { Operation = operation, Sector = (ulong)offset / 512, SectorCount = byteCount / 512, Data = memory };
                BlockStatus status = await image.HandleAsync(request);
                if (operation == BlockOperation.Read) memory.CopyTo(data);
                done.SetResult(status);
            }
            catch (Exception failure)
            {
                done.SetException(failure);
            }
        });
        return await done.Task.WaitAsync(Soon);
    }
}
