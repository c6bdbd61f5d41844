using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Handlers;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>
/// Collects a whole store. Processes that have VDIs open collect these; the others are opened only if a checkpoint is
/// needed, one after the other, and for no longer than that. VDIs that are deleted meanwhile are left out.
/// </summary>
/// <param name="store">The store.</param>
/// <param name="worker">Where VDIs are used.</param>
/// <param name="opening">How they are opened for writing.</param>
internal sealed class StoreCollection(IVdiStore store, Worker worker, ImageOpening opening)
{
    private readonly List<VdiImage> _opened = [];
    private readonly List<uint> _closed = [];
    private readonly Dictionary<uint, string> _names = []; // of those

    /// <summary>Does it; gives the number of bytes that were freed.</summary>
    public async Task<long> RunAsync()
    {
        long freed = 0;
        try
        {
            foreach (string name in store.Names) freed += await CollectAsync(name).ConfigureAwait(false);
            Collector collector = new(store, opening.Warn) { Patience = Collector.CommandPatience };
            await collector.RunAsync(_opened, withUnnamed: true, _closed).ConfigureAwait(false);
            freed += collector.Freed * VdiFormat.BlockSize;
            if (collector.Sparse.Count > 0) freed += await MoveAsync(collector.Sparse).ConfigureAwait(false);
            return freed;
        }
        finally
        {
            foreach (VdiImage image in _opened) await image.DisposeAsync().ConfigureAwait(false);
        }
    }

    private async Task<long> CollectAsync(string name)
    {
        uint vdi = 0;
        try
        {
            vdi = store.Find(name);
            CollectReply? reply = await VdiSocket.TryAskAsync(store, vdi, CollectHandler.Instance, new CollectRequest())
                .ConfigureAwait(false);
            if (reply is not null) return reply.FreedBytes;
            if (store.ReadState(vdi) is null) _opened.Add(Open(name));
            else await SettleAsync(name, vdi).ConfigureAwait(false);
            _closed.Add(vdi);
            _names[vdi] = name;
        }
        catch (ImageInUseException)
        {
            // Who reads it by its name alone keeps all that it has; what others do not need is given back.
        }
        catch (Exception failure) when (failure is TargetException or IOException && !store.Has(name, vdi))
        {
            // It was deleted meanwhile.
        }
        catch (IOException failure)
        {
            throw new TargetException($"VDI {name} cannot be read: {failure.Message}", failure);
        }

        return 0;
    }

    // Only the newest head counts then, and there is no log after it.
    private async Task SettleAsync(string name, uint vdi)
    {
        if (IsSettled(vdi)) return;
        VdiImage image = Open(name);
        await using (image.ConfigureAwait(false))
        {
            await image.InvokeAsync(image.Parts.Checkpointer.SettleAsync).ConfigureAwait(false);
        }
    }

    // One after the other, and for no longer than that takes.
    private async Task<long> MoveAsync(IReadOnlyList<uint> sparse)
    {
        long freed = 0;
        foreach (uint vdi in sparse)
        {
            if (TryOpen(_names[vdi], vdi) is not VdiImage image) continue;
            await using (image.ConfigureAwait(false))
            {
                Collector collector = new(store, opening.Warn) { Patience = Collector.CommandPatience };
                await collector.RunAsync([image], withUnnamed: false).ConfigureAwait(false);
                freed += collector.Freed * VdiFormat.BlockSize;
            }
        }

        return freed;
    }

    private VdiImage? TryOpen(string name, uint vdi)
    {
        try
        {
            return Open(name);
        }
        catch (ImageInUseException)
        {
            return null; // who has it collects it
        }
        catch (TargetException) when (!store.Has(name, vdi))
        {
            return null; // it was deleted meanwhile
        }
    }

    private bool IsSettled(uint vdi)
    {
        try
        {
            return ClosedRun.TryBegin(store, vdi, opening.Warn) is not null;
        }
        catch (InvalidDataException)
        {
            return false; // who opens it says what is damaged
        }
    }

    private VdiImage Open(string name)
    {
        VdiImage image = VdiOpener.Open(
            store, new VdiName(name, null), "none", opening with { OpensUnfinished = true });
        image.UseOn(worker);
        return image;
    }
}
