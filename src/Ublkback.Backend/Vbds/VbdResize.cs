using Ublkback.Backend.Connections;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Backend.Vbds;

/// <summary>Resizes a disk while a guest uses it: measures the image, and reports a new size to the guest.</summary>
/// <remarks>
/// <see cref="RequestAsync"/> and <see cref="EnlargeAsync"/> can be called on any thread; <see cref="ServeAsync"/> runs
/// on the vbd's loop only. Invariant: a measurement starts after all requests that it answers.
/// </remarks>
/// <param name="image">The vbd's image.</param>
/// <param name="nodes">The vbd's nodes.</param>
/// <param name="log">The vbd's log.</param>
/// <param name="wake">Wakes the vbd's loop, which then calls <see cref="ServeAsync"/>.</param>
internal sealed class VbdResize(DiskImage image, VbdNodes nodes, VbdLog log, Action wake)
{
    private static readonly TimeSpan MeasurePatience = TimeSpan.FromSeconds(2);

    private TaskCompletionSource? _request; // not yet begun
    private Task<bool> _measuring = Task.FromResult(false);

    /// <summary>Asks the loop to measure the image. Ends when a new size, if any, is in the store.</summary>
    public Task RequestAsync()
    {
        TaskCompletionSource mine = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource request = Interlocked.CompareExchange(ref _request, mine, null) ?? mine;
        wake();
        return request.Task;
    }

    /// <summary>Enlarges the image of a connected vbd, and reports the new size to the guest.</summary>
    /// <exception cref="TargetException">No guest is connected, or the image cannot have that size.</exception>
    public async Task EnlargeAsync(BlkifConnection? connection, long byteCount)
    {
        if (connection is null)
            throw new TargetException("no guest is connected to the disk", "detach it and use 'ublkback image resize'");
        ImageGeometry geometry = connection.Image.Geometry;
        long now = (long)geometry.SectorCount * BlockRequest.SectorSize;
        if (byteCount < now)
            throw new TargetException(
                $"a disk in use can only grow, and it has {now} bytes now",
                "detach it and use 'ublkback image resize --shrink'");
        if (byteCount % geometry.SectorSize != 0)
            throw new TargetException($"{byteCount} bytes are not whole sectors of {geometry.SectorSize} bytes");
        await connection.Loop.InvokeAsync(() => connection.Image.ResizeAsync(byteCount)).ConfigureAwait(false);
        await RequestAsync().ConfigureAwait(false);
    }

    /// <summary>Completes the waiting requests. Without a connection there is no size to report.</summary>
    public async Task ServeAsync(BlkifConnection? connection)
    {
        if (Interlocked.Exchange(ref _request, null) is not TaskCompletionSource request) return;
        try
        {
            if (connection is not null) await MeasureAsync().ConfigureAwait(false);
        }
        finally
        {
            request.SetResult();
        }
    }

    private async Task MeasureAsync()
    {
        try
        {
            SharedImage open = await image.OpenAsync().ConfigureAwait(false);
            if (!await RemeasureAsync(open.Image).ConfigureAwait(false)) return;
            ImageGeometry geometry = open.Image.Geometry;
            log.Resized(geometry.SectorCount / 2048);
            // A frontend reads the size again when the state is written, even if the state is the same.
            await nodes.SwitchAsync(XenbusState.Connected, XenbusState.Connected, VbdNodes.Size(geometry))
                .ConfigureAwait(false);
        }
        catch (LinuxException failure)
        {
            log.ImageFailed($"cannot read the size of the image: {failure.Message}");
        }
    }

    // True if the size changed; false also if the storage does not answer in time.
    private async Task<bool> RemeasureAsync(IBlockImage measured)
    {
        if (_measuring.IsCompleted) _measuring = Task.Run(measured.Remeasure);
        await Task.WhenAny(_measuring, Task.Delay(MeasurePatience)).ConfigureAwait(false);
        return _measuring.IsCompleted && await _measuring.ConfigureAwait(false);
    }
}
