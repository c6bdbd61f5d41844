using System.Diagnostics;
using Ublkback.Block;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>The two locks of a store in a pool. Any thread; blocks it.</summary>
internal sealed class RadosStoreLocks(RadosPool pool, TimeSpan? patience) : IDisposable
{
    private static readonly TimeSpan RetryDelay = TimeSpan.FromMilliseconds(20);

    private readonly TimeSpan _patience = patience ?? RadosLease.Time + WriterTakeover.Patience; // of one that died

    // One at a time of this process's own, so that what a change names is the number of who makes it.
    private readonly SemaphoreSlim _own = new(1);
    private RadosStoreLock? _structure;

    /// <summary>The lock of the structure, which is held.</summary>
    public RadosStoreLock Structure =>
        _structure ?? throw new InvalidOperationException("the structure of the store is not locked");

    /// <summary>Locks the structure.</summary>
    /// <exception cref="ImageInUseException">Another one has it, and does not give it back.</exception>
    public RadosStoreLock LockStructure()
    {
        string rival = $"another command that changes the VDIs of rados:{pool.Name}";
        using WaitNotice? wait = WaitNotice.Begin(() => rival);
        if (!_own.Wait(_patience)) throw Refuse(rival, _patience);
        try
        {
            return _structure = Take("structure", StructureFence.Attribute.ToArray(), rival, () =>
            {
                _structure = null;
                _own.Release();
            }, _patience, CancellationToken.None);
        }
        catch
        {
            _own.Release();
            throw;
        }
    }

    /// <summary>As <see cref="IVdiStore.LockCollection"/>.</summary>
    public RadosStoreLock LockCollection(TimeSpan patience, CancellationToken cancellation)
    {
        string rival = $"another process that collects or checks rados:{pool.Name}";
        using WaitNotice? wait = WaitNotice.Begin(() => rival);
        return Take(
            "collection", "fence.collection\0"u8.ToArray(), rival, () => { },
            patience > _patience ? patience : _patience, cancellation);
    }

    /// <inheritdoc/>
    public void Dispose() => _own.Dispose();

    private RadosStoreLock Take(
        string name, byte[] attribute, string rival, Action onDisposed,
        TimeSpan patience, CancellationToken cancellation)
    {
        long began = Stopwatch.GetTimestamp();
        do
        {
            if (RadosStoreLock.TryTake(pool, name, attribute, onDisposed) is { } taken) return taken;
            cancellation.ThrowIfCancellationRequested();
            Thread.Sleep(RetryDelay);
        }
        while (Stopwatch.GetElapsedTime(began) < patience);
        throw Refuse(rival, patience);
    }

    private static ImageInUseException Refuse(string rival, TimeSpan patience) =>
        new($"{rival} has not ended for {patience.TotalSeconds:0} s", "try again later");
}
