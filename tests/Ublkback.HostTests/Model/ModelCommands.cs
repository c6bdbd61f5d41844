using System.Diagnostics;

namespace Ublkback.HostTests.Model;

/// <summary>Chooses commands for a round, runs them, and tells the model what they did.</summary>
internal sealed class ModelCommands(ModelStore store)
{
    private const int MaxSnapshots = 4;
    private const int Quarter = 512; // sectors: a quarter of a disk as it is created

    private readonly List<ModelCommand> _running = [];

    /// <summary>How long the last command took that ended by itself.</summary>
    public TimeSpan UsualTime { get; private set; } = TimeSpan.FromMilliseconds(500);

    /// <summary>Chooses one, before requests are made; returns what runs it.</summary>
    public async Task<Func<Task>> ChooseAsync()
    {
        ModelVdi[] free = [.. store.Vdis.Values.Where(vdi => !vdi.IsTaken && vdi.Holder is { IsDead: false })];
        int kind = store.Random.Next(16);
        if (free.Length == 0) kind = 15;
        ModelVdi vdi = free.Length == 0 ? null! : free[store.Random.Next(free.Length)];
        string[] whole = free.Length == 0 ? [] : [.. vdi.Snapshots.Keys.Except(vdi.Deleting)];
        string snapshot = whole.Length == 0 ? "" : whole[store.Random.Next(whole.Length)];
        switch (kind)
        {
            case < 5 when vdi.Snapshots.Count < MaxSnapshots:
                vdi.IsTaken = true;
                return () => SnapshotAsync(vdi);
            case < 7 when whole.Length > 1:
                vdi.IsTaken = true;
                return () => DeleteSnapshotAsync(vdi, snapshot);
            case < 9 when whole.Length > 0 && store.Vdis.Count + store.Clones.Count < ModelStore.MaxVdis:
                vdi.IsTaken = true;
                return () => CloneAsync(vdi, snapshot);
            case 9 when free.Length > 2:
                vdi.IsTaken = vdi.IsQuiet = true;
                await vdi.Holder!.CloseAsync();
                return () => DeleteAsync(vdi);
            case 10 or 11 when whole.Length > 0 && vdi.Snapshots[snapshot].Length == vdi.Disk.Sectors:
                vdi.IsTaken = vdi.IsQuiet = true;
                return () => RollBackAsync(vdi, snapshot);
            case 12 when vdi.Disk.Sectors < 6 * Quarter:
                vdi.IsTaken = true;
                return () => GrowAsync(vdi);
            case 13:
                vdi.IsTaken = true;
                return () => RunAsync(store.Command("compact", vdi.Name));
            case 14:
                return CheckAsync;
            case < 12 when vdi.Snapshots.Count < MaxSnapshots:
                vdi.IsTaken = true;
                return () => SnapshotAsync(vdi);
            default:
                return () => RunAsync(store.Command("gc"));
        }
    }

    /// <summary>Kills a command that runs; returns false if none does.</summary>
    public bool TryKill()
    {
        ModelCommand[] running;
        lock (_running) running = [.. _running];
        if (running.Length == 0) return false;
        ModelCommand command = running[store.Random.Next(running.Length)];
        if (!command.TryKill()) return false;
        store.Note($"killed: {command}");
        return true;
    }

    /// <summary>Runs a command to its end, again and again if it is refused.</summary>
    public async Task FinishAsync(ModelCommand command, string? alsoDone = null)
    {
        for (int tries = 0; !await command.RunAsync(); tries++)
        {
            if (alsoDone is not null && command.Output.Contains(alsoDone, StringComparison.Ordinal)) break;
            store.Refused($"again: {command}: {command.Output}");
            if (tries == 20) throw new ModelException($"{command} is refused: {command.Output}");
        }

        store.Note($"finished: {command}");
    }

    /// <summary>Makes a closed disk smaller, to the end.</summary>
    public async Task ShrinkAsync(ModelVdi vdi)
    {
        int sectors = Math.Max(2 * Quarter, vdi.Disk.Sectors - (Quarter / 2));
        await FinishAsync(store.Command("resize", vdi.Name, $"{sectors * SectorPattern.Size}", "--shrink"));
        vdi.Disk.Resize(sectors);
    }

    private async Task SnapshotAsync(ModelVdi vdi)
    {
        string name = store.NewName("s");
        long begin = store.Clock.Next();
        vdi.Asked[name] = new ModelAsked(begin, long.MaxValue, store.Round);
        if (await RunAsync(store.Command("snapshot", vdi.Name, name)))
            vdi.Asked[name] = new ModelAsked(begin, store.Clock.Next(), store.Round);
    }

    private async Task DeleteSnapshotAsync(ModelVdi vdi, string snapshot)
    {
        vdi.Deleting.Add(snapshot);
        if (!await RunAsync(store.Command("delete", $"{vdi.Name}@{snapshot}"))) return;
        vdi.Deleting.Remove(snapshot);
        vdi.Snapshots.Remove(snapshot);
    }

    private async Task CloneAsync(ModelVdi vdi, string snapshot)
    {
        string name = store.NewName("v");
        store.Clones[name] = ([.. vdi.Snapshots[snapshot]], false);
        bool isDone = await RunAsync(store.Command("clone", $"{vdi.Name}@{snapshot}", name));
        store.Clones[name] = ([.. vdi.Snapshots[snapshot]], isDone);
    }

    private async Task DeleteAsync(ModelVdi vdi)
    {
        vdi.Unfinished = store.Command("delete", vdi.Name, "--snapshots");
        vdi.IsDeleted = true;
        if (await RunAsync(vdi.Unfinished)) vdi.Unfinished = null;
    }

    private async Task RollBackAsync(ModelVdi vdi, string snapshot)
    {
        long[] then = vdi.Snapshots[snapshot];
        vdi.Kept.Clear();
        vdi.Kept.AddRange([vdi.Disk.Content(), then]);
        vdi.Disk.Alternative = then;
        vdi.Unfinished = store.Command("rollback", $"{vdi.Name}@{snapshot}", "--live");
        if (!await RunAsync(vdi.Unfinished)) return;
        vdi.Unfinished = null;
        vdi.Disk.Replace(then);
    }

    private async Task GrowAsync(ModelVdi vdi)
    {
        vdi.NextSectors = vdi.Disk.Sectors + (Quarter / 2);
        vdi.Unfinished = store.Command("resize", vdi.Name, $"{vdi.NextSectors * SectorPattern.Size}");
        if (!await RunAsync(vdi.Unfinished)) return;
        vdi.Unfinished = null;
        vdi.Disk.Resize(vdi.NextSectors);
    }

    // What is being created or deleted meanwhile is no damage of a VDI.
    private async Task CheckAsync()
    {
        ModelCommand command = store.Command("fsck");
        if (await RunAsync(command) || command.IsKilled) return;
        string[] damages =
        [
            .. command.Output.Split('\n').Where(line => line.Contains("damage", StringComparison.Ordinal)
                || line.Contains("checksum", StringComparison.Ordinal)),
        ];
        if (damages.Length > 0) throw new ModelException($"round {store.Round}: fsck: {command.Output}");
    }

    private async Task<bool> RunAsync(ModelCommand command)
    {
        lock (_running) _running.Add(command);
        store.Note($"run: {command}");
        long began = Stopwatch.GetTimestamp();
        bool isDone = await command.RunAsync();
        lock (_running) _running.Remove(command);
        if (isDone) UsualTime = Stopwatch.GetElapsedTime(began);
        store.Note($"{(isDone ? "done" : command.IsKilled ? "was killed" : "refused")}: {command}");
        if (!isDone && !command.IsKilled) store.Refused($"{command}: {command.Output}");
        return isDone;
    }
}
