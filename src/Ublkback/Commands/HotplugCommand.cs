using System.CommandLine;
using System.Diagnostics;
using Ublkback.Backend.Connections;
using Ublkback.Block;
using Ublkback.Commands.Disks;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Service;
using Ublkback.XenStore;

namespace Ublkback.Commands;

/// <summary><c>ublkback hotplug add</c> and <c>remove</c>, for the hotplug script.</summary>
internal static class HotplugCommand
{
    /// <summary>Exit code that tells the script that there is no daemon.</summary>
    public const int NoDaemon = 3;

    private static readonly TimeSpan SuccessorPatience = TimeSpan.FromSeconds(30); // xl waits for its scripts for 40 s
    private static readonly TimeSpan RetryDelay = TimeSpan.FromMilliseconds(200);

    public static Command Make()
    {
        Option<string> host = CommonOptions.Host();
        Option<bool> tellStore = new("--tell-store")
        {
            Description = "When there is no daemon, say so in the store, where the toolstack looks.",
        };
        Command add = new("add", "Have the daemon check the device that XENBUS_PATH names.") { host, tellStore };
        add.SetAction((arguments, _) => AddAsync(
            HostEnvironment.Parse(arguments.GetRequiredValue(host)), arguments.GetValue(tellStore)));
        Command remove = new("remove", "Wait until the image of the device that XENBUS_PATH names is closed.") { host };
        remove.SetAction((arguments, _) => RemoveAsync(HostEnvironment.Parse(arguments.GetRequiredValue(host))));
        return new Command("hotplug", "For the hotplug script block-ublkback.") { add, remove };
    }

    private static string DevicePath => Environment.GetEnvironmentVariable("XENBUS_PATH")
        ?? throw new CommandException("XENBUS_PATH is not set: this command is for the toolstack's hotplug script");

    // Without a daemon nothing holds the image. A daemon that starts holds images before it answers.
    private static async Task<int> RemoveAsync(HostEnvironment host)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                await ControlClient.AskAsync(host, HotplugRemoveCommand.Control, new HotplugRemoveRequest(DevicePath))
                    .ConfigureAwait(false);
                return 0;
            }
            catch (UserException failure) when (failure is LostDaemonException or NoDaemonException { IsAbsent: true })
            {
                if (!DaemonLock.IsHeld(host.RunDirectory) || Stopwatch.GetElapsedTime(start) > SuccessorPatience)
                    return 0;
            }

            await Task.Delay(RetryDelay).ConfigureAwait(false);
        }
    }

    private static async Task<int> AddAsync(HostEnvironment host, bool tellStore)
    {
        string path = DevicePath;
        try
        {
            await AskAsync(host, new HotplugAddRequest(path)).ConfigureAwait(false);
            return 0;
        }
        catch (NoDaemonException failure)
        {
            if (!tellStore) return NoDaemon;
            await TellStoreAsync(host, path, failure.Message).ConfigureAwait(false);
            throw;
        }
    }

    // A daemon that ends meanwhile is replaced soon, and the next one answers as well.
    private static async Task AskAsync(HostEnvironment host, HotplugAddRequest request)
    {
        long start = Stopwatch.GetTimestamp();
        bool wasThere = false;
        while (true)
        {
            try
            {
                await ControlClient.AskAsync(host, HotplugAddCommand.Control, request).ConfigureAwait(false);
                return;
            }
            catch (LostDaemonException) when (Stopwatch.GetElapsedTime(start) < SuccessorPatience)
            {
                wasThere = true;
            }
            catch (NoDaemonException) when (wasThere && Stopwatch.GetElapsedTime(start) < SuccessorPatience)
            {
                // not yet
            }

            await Task.Delay(RetryDelay).ConfigureAwait(false);
        }
    }

    private static async Task TellStoreAsync(HostEnvironment host, string path, string message)
    {
        try
        {
            await using XenStoreClient store = host.OpenStore();
            string home = await BackendServices.FindHomeAsync(store).ConfigureAwait(false);
            await store.WriteAsync($"{home}/{path}/hotplug-error", message).ConfigureAwait(false);
            await store.WriteAsync($"{home}/{path}/hotplug-status", "error").ConfigureAwait(false);
        }
        catch (XenStoreException failure)
        {
            throw new CommandException($"{message}; and {failure.Message}", failure);
        }
    }
}
