namespace Ublkback.HostTests.Model;

/// <summary>
/// Starts again what was killed, ends what was not finished, and compares each VDI and snapshot with the model. Nothing
/// else runs meanwhile.
/// </summary>
internal sealed class ModelJudge(ModelStore store, ModelCommands commands)
{
    private const int Lateness = 2; // rounds, until what was asked for by who was killed comes no more

    /// <summary>Judges the whole store.</summary>
    public async Task RunAsync()
    {
        foreach (ModelVdi vdi in store.Vdis.Values.ToList()) await LookAtDeadAsync(vdi);
        ModelVdi[] dead = [.. store.Vdis.Values.Where(vdi => vdi.Holder is null && store.Random.Next(2) == 0)];
        await Task.WhenAll(dead.Select(vdi => store.StartAndKillAsync(vdi.Name, store.Random.Next(700))));
        store.Kills += dead.Length;
        await Task.WhenAll(store.Vdis.Values.Select(ReopenAsync));
        foreach (ModelVdi vdi in store.Vdis.Values) await FinishAsync(vdi);
        await FindAsync();
        foreach (ModelVdi vdi in store.Vdis.Values) await CompareAsync(vdi);
    }

    // What has died is read before anybody opens it for writing.
    private async Task LookAtDeadAsync(ModelVdi vdi)
    {
        if (vdi.IsDeleted)
        {
            if (vdi.Unfinished is not null) await commands.FinishAsync(vdi.Unfinished, "there is no VDI");
            if (vdi.Holder is not null) await vdi.Holder.DisposeAsync();
            store.Vdis.Remove(vdi.Name);
            return;
        }

        if (vdi.Holder is { IsDead: false }) return;
        if (vdi.Holder is not null) await vdi.Holder.DisposeAsync();
        vdi.Holder = null;
        if (store.Random.Next(3) == 0)
            store.Require($"{vdi.Name} after its process died", vdi.Disk.Compare(await ReadAsync(vdi.Name)));
        if (store.Random.Next(6) == 0 && vdi.Unfinished is null) await commands.ShrinkAsync(vdi);
    }

    private async Task ReopenAsync(ModelVdi vdi)
    {
        if (vdi.Holder is not null) return;
        vdi.Holder = await store.StartHolderAsync(vdi.Name);
        long[] found = await vdi.Holder.ReadAllAsync();
        store.Require($"{vdi.Name}, opened again", vdi.Disk.Compare(found));
        vdi.Disk.Settle(found, store.Clock);
    }

    private async Task FinishAsync(ModelVdi vdi)
    {
        if (vdi.Unfinished is null) return;
        await commands.FinishAsync(vdi.Unfinished);
        vdi.Unfinished = null;
        if (vdi.Disk.Alternative is { } then) vdi.Disk.Replace(then);
        else vdi.Disk.Resize(vdi.NextSectors);
    }

    // What is there, and what must be.
    private async Task FindAsync()
    {
        Dictionary<string, string[]> listed = store.Reader.List();
        foreach (string name in listed.Keys.Except(store.Vdis.Keys).ToList())
        {
            if (!store.Clones.Remove(name, out (long[] Content, bool IsCertain) clone))
                throw new ModelException($"round {store.Round}: there is a VDI {name}");
            ModelVdi vdi = new(name, new ModelDisk(clone.Content));
            store.Vdis.Add(name, vdi);
            await ReopenAsync(vdi);
        }

        string[] lost = [.. store.Vdis.Keys.Except(listed.Keys)];
        lost = [.. lost, .. store.Clones.Where(clone => clone.Value.IsCertain).Select(clone => clone.Key)];
        if (lost.Length > 0) throw new ModelException($"round {store.Round}: lost: {string.Join(' ', lost)}");
        store.Clones.Clear();
        foreach (ModelVdi vdi in store.Vdis.Values) await FindSnapshotsAsync(vdi, listed[vdi.Name]);
    }

    private async Task FindSnapshotsAsync(ModelVdi vdi, string[] listed)
    {
        foreach (string name in listed.Where(name => !vdi.Snapshots.ContainsKey(name)))
        {
            string full = $"{vdi.Name}@{name}";
            long[] found = await ReadAsync(full);
            if (vdi.Asked.Remove(name, out ModelAsked? asked))
                store.Require(full, vdi.Disk.CompareSnapshot(found, asked.Begin, asked.End));
            else if (!vdi.Kept.Any(kept => kept.AsSpan().SequenceEqual(found)))
                throw new ModelException($"round {store.Round}: {full} is of no command");
            vdi.Snapshots.Add(name, found);
        }

        foreach (string name in vdi.Deleting.Except(listed).ToList())
        {
            vdi.Deleting.Remove(name);
            vdi.Snapshots.Remove(name);
        }

        string[] lost =
        [
            .. vdi.Snapshots.Keys.Except(listed),
            .. vdi.Asked.Where(asked => asked.Value.IsCertain).Select(asked => asked.Key),
        ];
        if (lost.Length > 0)
            throw new ModelException($"round {store.Round}: {vdi.Name} lost {string.Join(' ', lost)}");
        foreach ((string name, ModelAsked asked) in vdi.Asked.ToList())
        {
            if (asked.Round + Lateness < store.Round) vdi.Asked.Remove(name);
        }
    }

    private async Task CompareAsync(ModelVdi vdi)
    {
        store.Require(vdi.Name, vdi.Disk.Compare(await vdi.Holder!.ReadAllAsync()));
        foreach ((string name, long[] content) in vdi.Snapshots)
        {
            string full = $"{vdi.Name}@{name}";
            if (vdi.Deleting.Contains(name)) continue;
            store.Require(full, new ModelDisk(content).Compare(await ReadAsync(full)));
        }

        if (vdi.Asked.Count == 0) vdi.Disk.Forget();
        vdi.IsTaken = vdi.IsQuiet = false;
    }

    private async Task<long[]> ReadAsync(string name)
    {
        try
        {
            return await store.Reader.ReadAsync(name);
        }
        catch (Exception failure) when (failure is Ublkback.Block.TargetException or IOException)
        {
            throw new ModelException($"round {store.Round}: {name} cannot be read: {failure.Message}");
        }
    }
}
