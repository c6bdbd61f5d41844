using System.CommandLine;
using System.Globalization;
using Ublkback.Block;
using Ublkback.Commands.Disks;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi snapshot</c>, <c>rollback</c>, <c>resize</c> and <c>delete</c></summary>
internal static class VdiChangeCommands
{
    public static Command MakeSnapshot()
    {
        Argument<string> name = new("name") { Description = "The VDI, in use or not." };
        Argument<string?> snapshot = new("snapshot")
        {
            Description =
            "What the snapshot is to be called. Default: the time.",
            Arity = ArgumentArity.ZeroOrOne
        };
        Option<string?> store = VdiSession.Store();
        Command command = new("snapshot", "Keep what a VDI holds at this instant.") { name, snapshot, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            string called = arguments.GetValue(snapshot)
                ?? DateTime.UtcNow.ToString("yyyy-MM-dd_HH.mm.ss.fff", CultureInfo.InvariantCulture);
            await vdis.SnapshotAsync(arguments.GetRequiredValue(name), called).ConfigureAwait(false);
            Console.WriteLine($"{arguments.GetRequiredValue(name)}@{called}");
            return 0;
        }));
        return command;
    }

    public static Command MakeRollback()
    {
        Argument<string> snapshot = new("snapshot") { Description = "The snapshot: NAME@SNAPSHOT." };
        Option<bool> live = new("--live")
        {
            Description = "Even while a guest uses the VDI, which must not have it "
            + "mounted: it would mix what it remembers with what is there."
        };
        Option<string?> store = VdiSession.Store();
        Command command = new(
            "rollback",
            "Give a VDI the content of one of its snapshots. What it holds now is kept in another.") { snapshot, live,
                store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            string text = arguments.GetRequiredValue(snapshot);
            string kept = await vdis.RollBackAsync(text, arguments.GetValue(live)).ConfigureAwait(false);
            if (arguments.GetValue(live)) await TellGuestAsync().ConfigureAwait(false);
            Console.WriteLine(
                $"rolled back; what was there is {text[..text.IndexOf('@', StringComparison.Ordinal)]}@{kept}");
            return 0;
        }));
        return command;
    }

    public static Command MakeResize()
    {
        Argument<string> name = new("name") { Description = "The VDI, in use or not." };
        Argument<string> size = new("size") { Description = "The new size, such as 20G, or +5G for so much more." };
        Option<bool> shrink =
            new("--shrink") { Description = "The new size is smaller, and what lies behind it is lost." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("resize", "Make a VDI larger, or smaller. What is added reads as zeros.") { name, size, shrink, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            VdiInfo info = vdis.Describe(arguments.GetRequiredValue(name));
            string text = arguments.GetRequiredValue(size);
            long bytes = ByteSize.Read(text.TrimStart('+')) + (text.StartsWith('+') ? info.SizeBytes : 0);
            if (bytes < info.SizeBytes && !arguments.GetValue(shrink))
                throw new CommandException(
                    $"{info.Name} has {Reports.Size((ulong)info.SizeBytes)}, and what lies behind "
                    + $"{Reports.Size((ulong)Math.Max(0, bytes))} would be lost: say --shrink if it is not needed");
            if (bytes < info.SizeBytes && info.Holder is not null)
                throw new CommandException(
                    $"{info.Name} is in use by {info.Holder}: it can be made smaller when it is not");
            await vdis.ResizeAsync(info.Name, bytes).ConfigureAwait(false);
            if (info.Holder is not null) await TellGuestAsync().ConfigureAwait(false);
            Console.WriteLine(
                $"{info.Name}: {Reports.Size((ulong)info.SizeBytes)} before, {Reports.Size((ulong)bytes)} now");
            return 0;
        }));
        return command;
    }

    public static Command MakeDelete()
    {
        Argument<string> name = new("name") { Description = "NAME, which no guest may be using, or NAME@SNAPSHOT." };
        Option<bool> snapshots = new("--snapshots") { Description = "The snapshots of NAME are deleted with it." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("delete", "Delete a VDI or a snapshot. Clones keep what they have.") { name, snapshots, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            string[] parts = arguments.GetRequiredValue(name).Split('@', 2);
            if (parts.Length == 2)
            {
                await vdis.DeleteSnapshotAsync(parts[0], parts[1]).ConfigureAwait(false);
                return 0;
            }

            await vdis.DeleteAsync(parts[0], arguments.GetValue(snapshots)).ConfigureAwait(false);
            await vdis.CollectDeletedAsync().ConfigureAwait(false);
            return 0;
        }));
        return command;
    }

    // A guest that uses its disk finds out by itself; one that does not is told by the daemon, if it is that which has
    // it.
    private static async Task TellGuestAsync()
    {
        try
        {
            await ControlClient.AskAsync(
                HostEnvironment.Parse(HostEnvironment.Default), ResizeCommand.Control, new ResizeRequest())
                .ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is NoDaemonException or RefusedRequestException)
        {
            // Another program has it.
        }
    }
}
