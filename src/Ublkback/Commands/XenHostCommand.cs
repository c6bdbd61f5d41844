using System.CommandLine;
using System.Runtime.InteropServices;
using Ublkback.EmulatedHost;
using Ublkback.Hosting;

namespace Ublkback.Commands;

/// <summary><c>ublkback xen-host</c></summary>
internal static class XenHostCommand
{
    // SIGUSR1, signal(7); who was started by nohup never gets a SIGHUP.
    private const PosixSignal UserSignal = (PosixSignal)10;

    public static Command Make()
    {
        Argument<string> directory = new("directory") { Description = "Where to make it." };
        Command command = new(
            "xen-host",
            "Emulate a Xen host in a directory, for experiments without Xen: a store, grants, event channels.")
        {
            directory,
        };
        command.SetAction((arguments, _) => RunAsync(arguments.GetRequiredValue(directory)));
        return command;
    }

    private static async Task<int> RunAsync(string directory)
    {
        TaskCompletionSource stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using PosixSignalRegistration term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
        EmulatedXen host;
        try
        {
            host = await EmulatedXen.StartAsync(directory).ConfigureAwait(false);
        }
        catch (Exception failure)
            when (failure is IOException or UnauthorizedAccessException or System.Net.Sockets.SocketException
                or ArgumentException)
        {
            throw new CommandException($"no host can be made in {directory}: {failure.Message}", failure);
        }

        await using (host)
        {
            using PosixSignalRegistration drop = PosixSignalRegistration.Create(UserSignal, signal =>
            {
                signal.Cancel = true;
                host.Store.DropConnections();
            });
            Console.WriteLine($"ready: {host.Layout.Root}");
            Console.WriteLine($"  daemon:  ublkback daemon --host {host.Layout.Root}");
            Console.WriteLine($"  store:   XENSTORED_PATH={host.Layout.StoreSocket} xenstore-ls -f");
            Console.WriteLine("  SIGUSR1 makes the store drop all its connections, SIGTERM ends it.");
            await stopped.Task.ConfigureAwait(false);
        }

        return 0;

        void Stop(PosixSignalContext signal)
        {
            signal.Cancel = true;
            stopped.TrySetResult();
        }
    }
}
