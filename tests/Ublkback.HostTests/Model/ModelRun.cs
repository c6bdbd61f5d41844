namespace Ublkback.HostTests.Model;

/// <summary>
/// Rounds in which guests write, commands run, and processes are killed or stopped. After each the model judges.
/// </summary>
internal sealed class ModelRun
{
    private const int Writers = 3;
    private const int LateWrites = 16;

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    private readonly ModelStore _store;
    private readonly ModelCommands _commands;
    private readonly ModelJudge _judge;

    public ModelRun(ModelStore store)
    {
        _store = store;
        _commands = new ModelCommands(store);
        _judge = new ModelJudge(store, _commands);
    }

    /// <summary>How many VDIs were taken over, or were tried to be, from processes that were stopped.</summary>
    public int Takeovers { get; private set; }

    /// <summary>Creates the first VDIs.</summary>
    public async Task StartAsync()
    {
        for (int i = 0; i < ModelStore.MaxVdis - 1; i++)
        {
            string name = _store.NewName("v");
            await _commands.FinishAsync(_store.Command("create", name, "1M"));
            _store.Vdis.Add(name, new ModelVdi(name, new ModelDisk(new long[2048])));
        }

        await _judge.RunAsync();
    }

    /// <summary>A round with kills: of processes that have VDIs open, of commands, or of both.</summary>
    public async Task KillAsync()
    {
        _store.Round++;
        (Task commands, ModelVdi[] written) = await BeginAsync();
        await Task.Delay(_commands.UsualTime * 1.2 * _store.Random.NextDouble()); // any moment
        int kind = _store.Random.Next(3);
        if (kind != 0 && _commands.TryKill()) _store.Kills++;
        foreach (ModelVdi vdi in kind == 1 ? [] : _store.Vdis.Values.ToArray())
        {
            if (vdi.Holder is not { IsDead: false } || _store.Random.Next(4) == 0) continue;
            await vdi.Holder.KillAsync();
            _store.Kills++;
            _store.Note($"killed: export {vdi.Name}");
        }

        await EndAsync(commands, written);
    }

    /// <summary>A round in which processes are stopped, and their VDIs are taken by others.</summary>
    /// <param name="count">From how many.</param>
    /// <param name="isPossible">False if the kernel's lock prevents it.</param>
    public async Task TakeOverAsync(int count, bool isPossible)
    {
        _store.Round++;
        (Task commands, ModelVdi[] written) = await BeginAsync(isQuick: true);
        await commands.WaitAsync(Patience);
        await Task.Delay(_store.Random.Next(300)); // any moment
        ModelVdi[] victims = [.. written.Where(vdi => vdi.Holder is { IsDead: false }).Take(count)];
        foreach (ModelVdi vdi in victims) await vdi.Holder!.SignalAsync("STOP");
        _store.Note($"stopped: {string.Join(' ', victims.Select(vdi => vdi.Name))}");
        Task beside = isPossible ? _store.Command("gc").RunAsync() : Task.CompletedTask;
        await Task.WhenAll(victims.Select(vdi => isPossible ? TakeAsync(vdi) : TryTakeAsync(vdi)));
        Takeovers += victims.Length;
        await EndAsync(beside, written);
    }

    /// <summary>Ends all, and checks the whole store.</summary>
    public async Task EndAsync()
    {
        foreach (ModelVdi vdi in _store.Vdis.Values) await vdi.Holder!.CloseAsync();
        foreach (ModelVdi vdi in _store.Vdis.Values)
            _store.Require(vdi.Name, vdi.Disk.Compare(await _store.Reader.ReadAsync(vdi.Name)));
        List<string> damages = _store.Reader.Check();
        if (damages.Count > 0) throw new ModelException($"fsck: {string.Join("; ", damages)}");
    }

    /// <summary>Ends all processes.</summary>
    public async Task StopAsync()
    {
        foreach (ModelVdi vdi in _store.Vdis.Values)
        {
            if (vdi.Holder is not null) await vdi.Holder.DisposeAsync();
        }
    }

    private async Task<(Task Commands, ModelVdi[] Written)> BeginAsync(bool isQuick = false)
    {
        List<Func<Task>> chosen = [];
        for (int i = _store.Random.Next(1, 4); i > 0 && !isQuick; i--) chosen.Add(await _commands.ChooseAsync());
        ModelVdi[] written = [.. _store.Vdis.Values.Where(vdi => !vdi.IsQuiet && vdi.Holder is { IsDead: false })];
        foreach (ModelVdi vdi in written) vdi.StartWriters(Writers, _store.Clock, _store.Random.Next);
        return (Task.WhenAll(chosen.Select(run => run())), written);
    }

    private async Task EndAsync(Task commands, ModelVdi[] written)
    {
        await commands.WaitAsync(Patience);
        foreach (ModelVdi vdi in written) await vdi.StopWritersAsync(Patience);
        await _judge.RunAsync();
    }

    // In a pool: the stopped process loses the VDI, and what it still writes is refused.
    private async Task TakeAsync(ModelVdi vdi)
    {
        await using ModelHolder old = vdi.Holder!;
        Task[] waiting = vdi.Detach();
        await _commands.FinishAsync(_store.Command("lock", vdi.Name, "--break"));
        vdi.Holder = await _store.StartHolderAsync(vdi.Name);
        long[] found = await vdi.Holder.ReadAllAsync();
        _store.Require($"{vdi.Name}, taken over", vdi.Disk.Compare(found));
        vdi.Disk.Settle(found, _store.Clock);
        vdi.StartWriters(Writers, _store.Clock, () => _store.Clock.GetHashCode() ^ vdi.Name.GetHashCode());
        await old.SignalAsync("CONT");
        // A discard may be answered as done if it is for a disk that was empty. It must change nothing.
        Task<NbdResult> discard = old.Client.DiscardAsync(0, 1024);
        NbdResult[] late = await Task.WhenAll(Enumerable.Range(0, LateWrites).Select(i =>
        {
            byte[] data = new byte[SectorPattern.Size * 8];
            SectorPattern.Fill(data, _store.Clock.Next(), i * 64);
            return old.Client.WriteAsync(i * 64, data);
        })).WaitAsync(Patience);
        await discard.WaitAsync(Patience);
        int done = late.Count(result => result == NbdResult.Done);
        _store.Require($"{vdi.Name}: writes after it was taken", done == 0 ? null : $"{done} were answered as done");
        await Task.WhenAll(waiting).WaitAsync(Patience); // an answer for what is lost is an exception there
    }

    // In a folder: nobody gets the VDI, and its process goes on.
    private async Task TryTakeAsync(ModelVdi vdi)
    {
        ModelCommand command = _store.Command("lock", vdi.Name, "--break");
        bool isBroken = await command.RunAsync();
        string? refusal = null;
        try
        {
            await (await _store.StartHolderAsync(vdi.Name, isPatient: false)).DisposeAsync();
        }
        catch (ModelException failure)
        {
            refusal = failure.Message;
        }

        await vdi.Holder!.SignalAsync("CONT");
        _store.Require(
            $"{vdi.Name}, taken from a process that was stopped",
            !isBroken && refusal?.Contains("in use", StringComparison.Ordinal) == true ? null : refusal ?? "opened");
    }
}
